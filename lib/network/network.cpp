#include "network/network.hpp"

#include <algorithm>
#include <cstring>

#include "comm/collectives.hpp"
#include "network/model_options.hpp"

namespace switchyard {

Network::Network(const Config& config, const Context& context, Mesh& mesh, const ImageShape& image)
    : config_(config), context_(context), mesh_(mesh), arena_(context.device) {
  const ModelOptions options = model_options(config, image);
  check_rows(config, options);
  model_ = make_model(options, table_);
  const Index local_experts = experts_or_leaves(config) / config.parallel.experts;
  parameters_ = std::make_unique<ParameterStore>(context.device, table_, local_experts * mesh.expert_group().rank(),
                                                 local_experts);
  parameters_->initialize(context, config.run.seed);
  packed_weights_ = std::make_unique<PackedWeights>(context, *parameters_);
}

namespace {

// The samples' rows of `size` elements of `values`, one after the other, by way of `staged` to an array of the arena.
template <typename T>
T* gather_rows(const Context& context, kernels::Arena& arena, const std::vector<T>& values, Index size,
               std::span<const std::uint32_t> samples, std::vector<T>& staged) {
  const auto row = static_cast<std::size_t>(size);
  staged.resize(samples.size() * row);
  for (std::size_t i = 0; i < samples.size(); ++i)
    std::memcpy(staged.data() + i * row, values.data() + samples[i] * row, row * sizeof(T));
  T* rows = arena.take<T>(std::ssize(staged));
  kernels::copy_to_device(context, rows, staged.data(), std::ssize(staged) * Index{sizeof(T)});
  return rows;
}

}  // namespace

Microbatch Network::load_microbatch(kernels::Arena& arena, const Split& split, std::span<const std::uint32_t> samples,
                                    Index first_sample) {
  const Index size = model().options().image_size();
  Microbatch microbatch{.samples = std::ssize(samples), .first_sample = first_sample};
  if (split.features.empty())
    microbatch.images = gather_rows(context_, arena, split.images, size, samples, staged_images_);
  else
    microbatch.features = gather_rows(context_, arena, split.features, size, samples, staged_features_);
  microbatch.labels = gather_rows(context_, arena, split.labels, 1, samples, staged_labels_);
  return microbatch;
}

Index Network::microbatches_of_a_step() const {
  return config_.train.batch / config_.train.microbatch / mesh_.world().size();
}

std::string Network::first_bad_layer(const FiniteProbe& probe, const std::string& none) {
  std::vector<int> first_bad(static_cast<std::size_t>(mesh_.world().size()));
  all_gather(mesh_.world(), "search for the first bad layer", &probe.first_bad, sizeof(int), first_bad.data());
  const int place = *std::min_element(first_bad.begin(), first_bad.end());
  if (place == FiniteProbe::kNone) return none;
  return "the first layer whose output is not finite is " + model().place_name(place);
}

}  // namespace switchyard
