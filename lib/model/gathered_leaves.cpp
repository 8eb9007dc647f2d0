#include "model/gathered_leaves.hpp"

#include "comm/collectives.hpp"

namespace switchyard {

void GatheredLeaves::gather(const Pass& pass) {
  if (version_ == pass.parameters.version()) return;
  const ScopedSeconds exchanging(pass.seconds.exchange);
  for (Gathered& each : parameters_) {
    const ParameterSpec& spec = pass.parameters.table()[each.id];
    if (each.values.size() == 0) each.values = kernels::Array<float>(pass.context.device, spec.size());
    gather_arrays(pass.context, pass.expert_group, "weights of leaves", pass.parameters.value(each.id),
                  pass.parameters.num_local_experts() * spec.slice_size() * Index{sizeof(float)}, each.values.data());
  }
  version_ = pass.parameters.version();
}

void GatheredLeaves::add_gradient(const Pass& pass, std::size_t i, const float* gradient) const {
  const ParameterId id = parameters_[i].id;
  const Index leaf_size = pass.parameters.table()[id].slice_size(), local = pass.parameters.num_local_experts();
  const kernels::ArenaScope scope(pass.arena);
  const Index sources = pass.expert_group.size();
  if (sources > 1) {
    const ScopedSeconds exchanging(pass.seconds.exchange);
    float* received = pass.arena.take<float>(sources * local * leaf_size);
    const std::vector<Index> leaves(static_cast<std::size_t>(sources), local);
    all_to_all_v(pass.context, pass.expert_group, "gradients of leaves", gradient, leaves, received, leaves,
                 leaf_size * Index{sizeof(float)});
    gradient = received;
  }
  for (Index source = 0; source < sources; ++source)
    for (Index leaf = 0; leaf < local; ++leaf)
      pass.gradients->add_expert(pass.context, id, leaf, source, gradient + (source * local + leaf) * leaf_size);
}

}  // namespace switchyard
