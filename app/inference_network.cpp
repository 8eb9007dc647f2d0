#include "app/inference_network.hpp"

#include <algorithm>

#include "core/random.hpp"

namespace switchyard {

FfnOptions layer_options(const ModelOptions& options) {
  FfnOptions ffn = options.ffn;
  ffn.width = options.is_vit() ? options.width : options.image_size();
  ffn.out = options.is_vit() ? options.width : options.classes;
  ffn.prefix = "layer";
  return ffn;
}

namespace {

// Element i is number(i).
template <typename T, typename Number>
kernels::Array<T> array_of(const Context& context, Index size, const Number& number) {
  std::vector<T> values;
  for (Index i = 0; i < size; ++i) values.push_back(static_cast<T>(number(i)));
  kernels::Array<T> array(context.device, size);
  array.upload(context, values);
  return array;
}

}  // namespace

InferenceInputs::InferenceInputs(const Context& context, const ModelOptions& options, Index batch) {
  const auto word = [](std::uint32_t array, Index i) {
    return random_words({}, array, static_cast<std::uint32_t>(i))[0];
  };
  const auto unit = [&](Index i) { return 2 * to_unit_float(word(0, i)) - 1; };
  const Index size = batch * layer_options(options).width;
  x = array_of<float>(context, size, unit);
  if (options.is_vit()) residual = array_of<float>(context, size, unit);
  images = array_of<std::uint8_t>(context, batch * options.image_size(), [&](Index i) { return word(1, i); });
  labels = array_of<std::int32_t>(context, batch, [&](Index i) { return i % options.classes; });
}

InferenceNetwork::InferenceNetwork(const Context& context, Part part, const ModelOptions& options,
                                   const InferenceInputs& inputs, Index microbatch, kernels::Precision precision)
    : context_(context),
      inputs_(inputs),
      microbatch_(microbatch),
      precision_(precision),
      alone_(make_local_communicator()) {
  if (part == Part::kLayer)
    layer_ = make_ffn(layer_options(options), table_);
  else
    model_ = make_model(options, table_);
  parameters_ = std::make_unique<ParameterStore>(context.device, table_, 0, options.ffn.num_experts);
  parameters_->initialize(context, 1);
  packed_weights_ = std::make_unique<PackedWeights>(context, *parameters_);
}

void InferenceNetwork::run(kernels::Arena& arena, Index batch) {
  PhaseSeconds unused;
  const Pass pass{.context = context_,
                  .arena = arena,
                  .parameters = *parameters_,
                  .expert_group = *alone_,
                  .seconds = unused,
                  .packed_weights = packed_weights_.get(),
                  .precision = precision_};
  if (layer_) return run_layer(pass, batch);
  for (Index first = 0; first < batch; first += microbatch_) {
    const kernels::ArenaScope activations(arena);
    const Index samples = std::min(microbatch_, batch - first);
    model_->forward(pass, {.samples = samples,
                           .first_sample = first,
                           .images = inputs_.images.data() + first * model_->options().image_size(),
                           .labels = inputs_.labels.data() + first});
  }
}

void InferenceNetwork::run_layer(const Pass& pass, Index batch) {
  const kernels::ArenaScope activations(pass.arena);
  AuxiliaryLosses unused;
  layer_->forward(
      pass, {.samples = batch, .tokens_per_sample = 1, .x = inputs_.x.data(), .residual = inputs_.residual.data()},
      &unused);
}

Index InferenceNetwork::weight_bytes() const {
  return table_.num_stored() * Index{sizeof(float)} + packed_weights_->bytes();
}

}  // namespace switchyard
