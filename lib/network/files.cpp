// The parameters on their way to files and back, and their digest.
#include <xxhash.h>

#include <memory>
#include <utility>

#include "comm/collectives.hpp"
#include "network/network.hpp"

namespace switchyard {

Network::HostArrays Network::host_arrays(std::span<const Companion> companions) {
  struct Source {
    std::string prefix;
    const float* device;
    Index size;
  };
  std::vector<Source> sources{{"parameters/", std::as_const(*parameters_).values(), parameters_->size()}};
  for (const Companion& each : companions)
    sources.push_back({each.prefix + "/", each.values, parameters_->trained_size()});

  HostArrays arrays;
  int writer = 0;  // whole arrays are dealt out to ranks in turn
  for (const Source& source : sources) {
    std::vector<float>& copy = arrays.copies.emplace_back(static_cast<std::size_t>(source.size));
    kernels::copy_to_host(context_, copy.data(), source.device, source.size * Index{sizeof(float)});
    for (ParameterId id = 0; id < table_.size(); ++id) {
      const ParameterSpec& spec = table_[id];
      if (parameters_->offset(id) >= source.size) continue;  // the optimiser keeps nothing of what it does not train
      io::ArraySlice slice;
      slice.name = source.prefix + spec.name;
      slice.shape = spec.shape;
      slice.per_expert = spec.per_expert;
      slice.first = spec.per_expert ? parameters_->first_expert() : 0;
      slice.count = spec.per_expert ? parameters_->num_local_experts() : spec.shape.front();
      slice.data = copy.data() + parameters_->offset(id);
      slice.writes = spec.per_expert ? mesh_.replicas().rank() == 0 : writer == mesh_.world().rank();
      if (!spec.per_expert) writer = (writer + 1) % mesh_.world().size();
      arrays.slices.push_back(std::move(slice));
    }
  }
  return arrays;
}

void Network::save(Ranks& ranks, const std::filesystem::path& path, const io::CheckpointInfo& info,
                   std::span<const Companion> companions) {
  const HostArrays arrays = host_arrays(companions);
  io::save_checkpoint(ranks, path, info, arrays.slices);
}

io::CheckpointInfo Network::load(Ranks& ranks, const std::filesystem::path& path,
                                 std::span<const Companion> companions) {
  const HostArrays arrays = host_arrays(companions);
  const io::CheckpointInfo info = io::load_checkpoint(ranks, path, arrays.slices);
  const auto restore = [&](float* device, const std::vector<float>& copy) {
    kernels::copy_to_device(context_, device, copy.data(), static_cast<Index>(copy.size() * sizeof(float)));
  };
  restore(parameters_->values(), arrays.copies[0]);
  for (std::size_t i = 0; i < companions.size(); ++i) restore(companions[i].values, arrays.copies[i + 1]);
  return info;
}

std::string Network::digest() {
  const auto state =
      std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)>(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  Communicator& group = mesh_.expert_group();
  std::vector<float> values, received;
  // Ranks of the first expert group send their experts to rank 0, which hashes; the others only wait for the result.
  for (ParameterId id = 0; id < table_.size() && mesh_.replicas().rank() == 0; ++id) {
    const bool sharded = table_[id].per_expert && group.size() > 1;
    if (group.rank() != 0 && !sharded) continue;
    const Index size = parameters_->local_slices(id) * table_[id].slice_size(), bytes = size * Index{sizeof(float)};
    values.resize(static_cast<std::size_t>(size));
    kernels::copy_to_host(context_, values.data(), parameters_->value(id), bytes);
    if (group.rank() == 0) XXH3_128bits_update(state.get(), values.data(), static_cast<std::size_t>(bytes));
    if (!sharded) continue;
    received.resize(group.rank() == 0 ? values.size() * static_cast<std::size_t>(group.size()) : 0);
    std::vector<Transfer> transfers;
    if (group.rank() == 0) {
      for (int owner = 1; owner < group.size(); ++owner)
        transfers.push_back({owner, nullptr, 0, received.data() + owner * size, bytes});
    } else {
      transfers.push_back({0, values.data(), bytes, nullptr, 0});
    }
    group.exchange("digest of the parameters", transfers);
    if (group.rank() == 0)
      XXH3_128bits_update(state.get(), received.data() + size, static_cast<std::size_t>((group.size() - 1) * bytes));
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return broadcast_text(mesh_.world(), "digest of the parameters",
                        fmt::format("{:016x}{:016x}", hash.high64, hash.low64));
}

}  // namespace switchyard
