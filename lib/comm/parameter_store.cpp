#include "comm/parameter_store.hpp"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <utility>

#include "comm/collectives.hpp"
#include "core/random.hpp"
#include "kernels/api/reduce.hpp"

namespace switchyard {

ParameterStore::ParameterStore(Device device, const ParameterTable& table, Index first_expert, Index num_experts)
    : table_(table), first_expert_(first_expert), num_local_experts_(num_experts) {
  offsets_.resize(static_cast<std::size_t>(table.size()));
  const auto place = [&](bool trained, bool per_expert) {
    for (ParameterId id = 0; id < table.size(); ++id) {
      if (table[id].trained != trained || table[id].per_expert != per_expert) continue;
      offsets_[static_cast<std::size_t>(id)] = size_;
      size_ += local_slices(id) * table[id].slice_size();
    }
    return size_ = round_up(size_, kSectionMultiple);
  };
  replicated_size_ = place(true, false);
  trained_size_ = place(true, true);
  place(false, false);
  values_ = kernels::Array<float>(device, size_);
}

namespace {

std::vector<float> initial_values(const ParameterSpec& spec, std::uint64_t seed, Index expert) {
  std::vector<float> values(static_cast<std::size_t>(spec.slice_size()));
  const Initializer& start = spec.initializer;
  // Keyed by name, so that a parameter starts the same in every model that has it.
  RandomKey key{seed, Purpose::kInitialise};
  key.step = static_cast<std::uint32_t>(XXH3_64bits(spec.name.data(), spec.name.size()));
  const auto row = static_cast<std::uint32_t>(start.same_for_all ? 0 : expert);
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % 4 == 0) words = random_words(key, row, static_cast<std::uint32_t>(i / 4));
    const double unit = to_unit_float(words[i % 4]);
    switch (start.kind) {
      case Initializer::Kind::kZeros:
        values[i] = 0;
        break;
      case Initializer::Kind::kOnes:
        values[i] = 1;
        break;
      case Initializer::Kind::kUniform:
        values[i] = static_cast<float>((2 * unit - 1) * start.bound);
        break;
      case Initializer::Kind::kNormal:
        values[i] = static_cast<float>(to_normal(words, i % 4));
        break;
    }
  }
  if (!values.empty()) values[0] += static_cast<float>(start.added_to_first);
  return values;
}

}  // namespace

void ParameterStore::initialize(const Context& context, std::uint64_t seed) {
  ++version_;
  values_.clear(context);
  for (ParameterId id = 0; id < table_.size(); ++id)
    for (Index slice = 0; slice < local_slices(id); ++slice)
      values_.upload(context, initial_values(table_[id], seed, table_[id].per_expert ? first_expert_ + slice : 0),
                     offset(id, slice));
}

GradientSums::GradientSums(Device device, const ParameterStore& store, Index num_leaves, Index block, Mesh& mesh,
                           const Reduction& reduction, Index num_metrics)
    : mesh_(mesh),
      reduction_(reduction),
      num_metrics_(num_metrics),
      part_of_parameter_(static_cast<std::size_t>(store.table().size())),
      trained_size_(store.trained_size()),
      replicated_size_(store.replicated_size()) {
  const ParameterTable& table = store.table();
  std::vector<Index> replicated_parts{num_metrics}, expert_parts;
  for (ParameterId id = 0; id < table.size(); ++id) {
    if (!table[id].trained) continue;
    std::vector<Index>& parts = table[id].per_expert ? expert_parts : replicated_parts;
    part_of_parameter_[static_cast<std::size_t>(id)] = static_cast<Index>(parts.size());
    parts.insert(parts.end(), static_cast<std::size_t>(store.local_slices(id)), table[id].slice_size());
  }
  // Metrics end where a section begins.
  const Index before = round_up(num_metrics, ParameterStore::kSectionMultiple);
  storage_ = kernels::Array<float>(device, before + trained_size_);
  gradients_ = storage_.data() + before;
  replicated_ =
      std::make_unique<TreeSum>(device, num_leaves, block, replicated_parts, storage_.data(), before - num_metrics);
  if (!expert_parts.empty())
    for (int source = 0; source < mesh.expert_group().size(); ++source) {
      float* total = source == 0 ? gradients_ + replicated_size_ : nullptr;
      by_source_.push_back(std::make_unique<TreeSum>(device, num_leaves, block, expert_parts, total));
    }
  const Index expert_size = by_source_.empty() ? 0 : by_source_[0]->size();
  scratch_ = kernels::Array<float>(device, (std::max(replicated_->size(), expert_size) + 1) / 2);
  reduced_ = nothing_reduced();
  if (reduction_.overlap) stream_.emplace(device, kernels::Priority::kHigh);
}

Index GradientSums::expert_part(ParameterId id, Index local_expert) const {
  return part_of_parameter_[static_cast<std::size_t>(id)] + local_expert;
}

GradientSums::Leaf GradientSums::leaf(ParameterId id, kernels::Arena& arena) {
  const Index part = part_of_parameter_[static_cast<std::size_t>(id)];
  return {replicated_.get(), part, replicated_->leaf(part, arena)};
}

GradientSums::Leaf GradientSums::expert_leaf(ParameterId id, Index local_expert, Index source, kernels::Arena& arena) {
  TreeSum& sum = *by_source_[static_cast<std::size_t>(source)];
  const Index part = expert_part(id, local_expert);
  return {&sum, part, sum.leaf(part, arena)};
}

GradientSums::Leaf GradientSums::metrics_leaf(kernels::Arena& arena) {
  return {replicated_.get(), 0, replicated_->leaf(0, arena)};
}

namespace {

kernels::Gemm adding_to(const kernels::TreeCarry& sum, kernels::Gemm product) {
  product.c = sum.out;
  product.num_addends = sum.num_earlier;
  product.addends = sum.earlier;
  return product;
}

}  // namespace

kernels::Gemm GradientSums::leaf_product(ParameterId id, const kernels::Gemm& product) {
  return adding_to(replicated_->take_leaf(part_of_parameter_[static_cast<std::size_t>(id)]), product);
}

kernels::Gemm GradientSums::expert_leaf_product(ParameterId id, Index local_expert, Index source,
                                                const kernels::Gemm& product) {
  return adding_to(by_source_[static_cast<std::size_t>(source)]->take_leaf(expert_part(id, local_expert)), product);
}

void GradientSums::skip_expert(const Context& context, ParameterId id, Index local_expert, Index source) {
  by_source_[static_cast<std::size_t>(source)]->skip(context, expert_part(id, local_expert));
}

GradientSums::State GradientSums::state() const {
  State state{replicated_->state(), {}};
  for (const auto& sum : by_source_) state.by_source.push_back(sum->state());
  return state;
}

void GradientSums::set_state(const State& state) {
  replicated_->set_state(state.replicated);
  for (std::size_t source = 0; source < by_source_.size(); ++source)
    by_source_[source]->set_state(state.by_source[source]);
}

GradientSums::Reduced GradientSums::nothing_reduced() const {
  return {replicated_->num_parts(), by_source_.empty() ? 0 : by_source_[0]->num_parts()};
}

Context GradientSums::reducing(const Context& context) const {
  Context own = context;
  own.turns = nullptr;  // only the last strand comes by here with sums that are complete
  if (reduction_.overlap) own.stream = stream_->get();
  return own;
}

void GradientSums::reduce_complete(const Context& context) {
  if (!reduction_.overlap) return;
  Reduced first{replicated_->complete_from(reduced_.replicated), reduced_.experts};
  if (!by_source_.empty()) {
    first.experts = 0;
    for (const auto& sum : by_source_) first.experts = std::max(first.experts, sum->complete_from(reduced_.experts));
  }
  if (first.replicated < reduced_.replicated || first.experts < reduced_.experts) reduce_from(context, first);
}

void GradientSums::reduce(const Context& context, Communicator& ranks, float* sums, Index size) {
  if (reduction_.by_library)
    ranks.all_reduce(context, sums, size);
  else
    tree_reduce(context, ranks, "sum of gradients", sums, size, scratch_.data());
}

void GradientSums::reduce_from(const Context& context, const Reduced& first) {
  const Reduced end = std::exchange(reduced_, first);
  const Context own = reducing(context);
  kernels::wait_for(own, context);
  reduce(own, mesh_.world(), replicated_->finish(own, first.replicated, end.replicated),
         replicated_->offset(end.replicated) - replicated_->offset(first.replicated));
  if (by_source_.empty()) return;
  // The sources are neighbouring ranks: the tree's next levels join them two by two.
  std::vector<float*> sums;
  for (auto& sum : by_source_) sums.push_back(sum->finish(own, first.experts, end.experts));
  const Index size = by_source_[0]->offset(end.experts) - by_source_[0]->offset(first.experts);
  for (std::size_t distance = 1; distance < sums.size(); distance *= 2) {
    for (std::size_t left = 0; left + distance < sums.size(); left += 2 * distance) {
      kernels::TreeCarry join;
      join.size = size;
      join.num_earlier = 1;
      join.earlier[0] = sums[left];
      join.last = sums[left + distance];
      join.out = sums[left];
      kernels::tree_carry(own, join);
    }
  }
  reduce(own, mesh_.replicas(), sums[0], size);
}

// The optimiser goes over all of the gradients as one array.
void GradientSums::fill_gaps(const Context& context) {
  const auto fill = [&](Index begin, Index end) {
    if (begin < end) kernels::fill_zero(context, gradients_ + begin, (end - begin) * Index{sizeof(float)});
  };
  const Index experts_size = by_source_.empty() ? 0 : by_source_[0]->size();
  fill(storage_.data() + replicated_->size() - gradients_, replicated_size_);
  fill(replicated_size_ + experts_size, trained_size_);
  gaps_are_zero_ = true;
}

GradientSums::Totals GradientSums::finish(const Context& context) {
  if (!gaps_are_zero_) fill_gaps(context);
  reduce_from(context, {0, 0});
  reduced_ = nothing_reduced();
  kernels::wait_for(context, reducing(context));
  return {gradients_, gradients_ - num_metrics_};
}

}  // namespace switchyard
