#include "model/vit.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "core/divisors.hpp"
#include "core/error.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard {

VisionTransformer::VisionTransformer(const VitOptions& options, ParameterTable& table) : options_(options) {
  if (options.image_height % options.patch != 0 || options.image_width % options.patch != 0)
    fail_usage("model.patch = {} does not divide the images of {}x{} pixels; take a divisor of both: {}.",
               options.patch, options.image_height, options.image_width,
               nearest_divisors("model.patch", std::gcd(options.image_height, options.image_width), options.patch));
  if (options.width % options.heads != 0)
    fail_usage("model.heads = {} does not divide model.width = {}: take a divisor of it.", options.heads,
               options.width);
  if (options_.positions == 0) options_.positions = options.num_patches();
  if (options_.positions < options.num_patches())
    fail_usage("model.positions = {} is less than the {} patches of an image: take at least so many, or 0.",
               options_.positions, options.num_patches());

  const Index patch_size = options.channels * options.patch * options.patch;
  embedding_ = Linear::add(table, "embedding.weight", "embedding.bias", patch_size, options.width);
  positions_ = table.add({"embedding.positions", {options_.positions, options.width}, false, {}});
  cls_ = table.add({"embedding.cls", {options.width}, false, {Initializer::Kind::kNormal}});
  for (Index layer = 0; layer < options.layers; ++layer) {
    const std::string prefix = fmt::format("blocks.{}", layer);
    FfnOptions ffn = options.ffn;
    ffn.width = options.width;
    ffn.layer = layer;
    ffn.prefix = prefix;
    if ((layer + 1) % options.mixture_every != 0) ffn.kind = "dense";
    if (ffn.is_mixture()) mixture_blocks_.push_back(layer);
    AttentionBlock attention(table, prefix, layer, options.width, options.heads);
    LayerNorm norm(table, prefix + ".norm2", options.width);
    blocks_.push_back({std::move(attention), std::move(norm), make_ffn(ffn, table)});
  }
  head_norm_ = std::make_unique<LayerNorm>(table, "head.norm", options.width);
  Index head_width = options.width;
  if (options.head_hidden > 0) {
    hidden_ = Linear::add(table, "head.hidden.weight", "head.hidden.bias", head_width, options.head_hidden);
    head_width = options.head_hidden;
  }
  output_ = Linear::add(table, "head.output.weight", "head.output.bias", head_width, options.classes);
}

VisionTransformer::Losses VisionTransformer::forward(const Pass& pass, const Microbatch& microbatch) {
  passes_ = pass.training ? options_.training_passes() : 1;
  samples_ = passes_ * microbatch.samples;
  const Index first_sample = passes_ * microbatch.first_sample, tokens = options_.num_tokens();
  const Index size = samples_ * tokens * options_.width;
  int place = 0;
  const auto look = [&](const float* x) {
    if (pass.probe) pass.probe->look(pass.context, place++, x, size);
  };

  AuxiliaryLosses auxiliary;
  const float* x = embed(pass, microbatch);
  const std::int32_t* words = patch_words(pass);
  look(x);
  for (Block& block : blocks_) {
    x = block.attention.forward(pass, samples_, tokens, first_sample, x);
    look(x);
    const float* normed = block.norm.forward(pass, samples_ * tokens, x, options_.width);
    x = block.ffn->forward(pass, {samples_, tokens, first_sample, normed, x, words, passes_}, &auxiliary);
    look(x);
  }
  Losses losses = classify(pass, microbatch, x);
  if (pass.probe) pass.probe->look(pass.context, place, losses.loss, losses.rows);
  auxiliary.consistency = losses.auxiliary.consistency;
  losses.auxiliary = auxiliary;
  return losses;
}

std::string VisionTransformer::place_name(int place) const {
  if (place == 0) return "embedding";
  if (place > 2 * options_.layers) return "head";
  return fmt::format("blocks.{}.{}", (place - 1) / 2, place % 2 == 1 ? "attention" : "ffn");
}

void VisionTransformer::backward(const Pass& pass) {
  const Index size = samples_ * options_.num_tokens() * options_.width;
  float* d_x = pass.arena.take<float>(size);
  classify_backward(pass, d_x);
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    Block& block = blocks_[layer];
    const kernels::ArenaScope scope(pass.arena);
    float* d_normed = pass.arena.take<float>(size);
    block.ffn->backward(pass, d_x, d_normed);
    block.norm.backward(pass, d_normed, d_x);
    block.attention.backward(pass, d_x);
  }
  embed_backward(pass, d_x);
}

void VisionTransformer::prepare_evaluation(const Pass& pass) {
  for (Block& block : blocks_) block.ffn->prepare_evaluation(pass);
}

void VisionTransformer::after_step(const Context& context, std::span<const float> chosen, ParameterStore& parameters) {
  const auto experts = static_cast<std::size_t>(options_.ffn.num_experts);
  for (std::size_t i = 0; i < mixture_blocks_.size(); ++i)
    blocks_[static_cast<std::size_t>(mixture_blocks_[i])].ffn->after_step(context, chosen.subspan(i * experts, experts),
                                                                          parameters);
}

std::int32_t* VisionTransformer::patch_words(const Pass& pass) const {
  const RouterOptions& router = options_.ffn.router;
  if (mixture_blocks_.empty() || router.name != "hash" || router.hash != "content") return nullptr;
  kernels::PatchWords words;
  words.samples = samples_;
  words.patches_per_sample = options_.num_patches();
  words.channels = options_.channels;
  words.patch = options_.patch;
  words.patches = patches_;
  words.mean = options_.mean;
  words.deviation = options_.deviation;
  words.words = pass.arena.take<std::int32_t>(samples_ * options_.num_tokens());
  kernels::patch_words(pass.context, words);
  return words.words;
}

float* VisionTransformer::embed(const Pass& pass, const Microbatch& microbatch) {
  const Index width = options_.width, rows = samples_ * options_.num_patches();
  patches_ = pass.arena.take<float>(rows * embedding_.in);
  kernels::Patchify patchify;
  patchify.samples = microbatch.samples;
  patchify.height = options_.image_height;
  patchify.width = options_.image_width;
  patchify.channels = options_.channels;
  patchify.patch = options_.patch;
  patchify.images = microbatch.images;
  patchify.mean = options_.mean;
  patchify.deviation = options_.deviation;
  if (pass.training) {
    patchify.crop_padding = options_.crop_padding;
    patchify.flip = options_.flip;
    patchify.key = {pass.seed, Purpose::kAugment, 0, static_cast<std::uint32_t>(pass.step)};
    patchify.first_row = static_cast<std::uint32_t>(microbatch.first_sample);
  }
  for (Index i = 0; i < passes_; ++i) {
    patchify.patches = patches_ + i * rows / passes_ * embedding_.in;
    kernels::patchify(pass.context, patchify);
  }

  float* projected = pass.arena.take<float>(rows * width);
  embedding_.forward(pass, rows, patches_, projected);
  float* x = pass.arena.take<float>(samples_ * options_.num_tokens() * width);
  kernels::embed_tokens(pass.context, {.samples = samples_,
                                       .patches = options_.num_patches(),
                                       .width = width,
                                       .projected = projected,
                                       .bias = pass.parameters.value(embedding_.bias),
                                       .positions = pass.parameters.value(positions_),
                                       .cls = pass.parameters.value(cls_),
                                       .y = x});
  return x;
}

void VisionTransformer::embed_backward(const Pass& pass, const float* d_x) {
  const kernels::ArenaScope scope(pass.arena);
  const Index width = options_.width, rows = samples_ * options_.num_patches();
  const auto d_bias = pass.gradients->leaf(embedding_.bias, pass.arena);
  const auto d_positions = pass.gradients->leaf(positions_, pass.arena);
  const auto d_cls = pass.gradients->leaf(cls_, pass.arena);
  // Rows of the position table that no patch uses.
  const Index used = options_.num_patches() * width;
  kernels::fill_zero(pass.context, d_positions.data + used, (options_.positions * width - used) * Index{sizeof(float)});
  float* d_projected = pass.arena.take<float>(rows * width);
  kernels::embed_tokens_backward(pass.context, {.samples = samples_,
                                                .patches = options_.num_patches(),
                                                .width = width,
                                                .d_y = d_x,
                                                .d_projected = d_projected,
                                                .d_bias = d_bias.data,
                                                .d_positions = d_positions.data,
                                                .d_cls = d_cls.data});
  for (const auto& leaf : {d_bias, d_positions, d_cls}) pass.gradients->add(pass.context, leaf);
  embedding_.backward(pass, rows, patches_, d_projected, nullptr);
}

VisionTransformer::Losses VisionTransformer::classify(const Pass& pass, const Microbatch& microbatch, const float* x) {
  const Index samples = samples_;
  head_input_ = head_norm_->forward(pass, samples, x, options_.num_tokens() * options_.width);
  const float* features = head_input_;
  if (options_.head_hidden > 0) {
    head_hidden_ = pass.arena.take<float>(samples * hidden_.out);
    head_activated_ = pass.arena.take<float>(samples * hidden_.out);
    hidden_.forward(pass, samples, head_input_, head_hidden_);
    kernels::bias_gelu_dropout(pass.context, {.rows = samples,
                                              .cols = hidden_.out,
                                              .x = head_hidden_,
                                              .bias = pass.parameters.value(hidden_.bias),
                                              .y = head_activated_});
    features = head_activated_;
  }
  logits_ = pass.arena.take<float>(samples * options_.classes);
  d_logits_ = pass.gradients ? pass.arena.take<float>(samples * options_.classes) : nullptr;
  output_.forward(pass, samples, features, logits_);
  float* loss = pass.arena.take<float>(samples);
  float* correct = pass.arena.take<float>(samples);
  if (passes_ > 1) return {samples, loss, correct, {.consistency = compare_passes(pass, microbatch, loss, correct)}};
  kernels::softmax_cross_entropy(pass.context, {.rows = samples,
                                                .classes = options_.classes,
                                                .logits = logits_,
                                                .bias = pass.parameters.value(output_.bias),
                                                .labels = microbatch.labels,
                                                .scale = static_cast<float>(pass.loss_scale),
                                                .loss = loss,
                                                .correct = correct,
                                                .d_logits = d_logits_});
  return {samples, loss, correct, {}};
}

double VisionTransformer::compare_passes(const Pass& pass, const Microbatch& microbatch, float* loss, float* correct) {
  float* divergence = pass.arena.take<float>(microbatch.samples);
  kernels::consistency_loss(pass.context, {.samples = microbatch.samples,
                                           .classes = options_.classes,
                                           .kind = options_.consistency_kind,
                                           .logits = logits_,
                                           .bias = pass.parameters.value(output_.bias),
                                           .labels = microbatch.labels,
                                           .scale = static_cast<float>(pass.loss_scale),
                                           .weight = static_cast<float>(options_.consistency),
                                           .loss = loss,
                                           .correct = correct,
                                           .divergence = divergence,
                                           .d_logits = d_logits_});
  divergences_.resize(static_cast<std::size_t>(microbatch.samples));
  kernels::copy_to_host(pass.context, divergences_.data(), divergence, microbatch.samples * Index{sizeof(float)});
  const double sum = std::accumulate(divergences_.begin(), divergences_.end(), 0.0);
  return options_.consistency * sum / static_cast<double>(std::max<Index>(1, microbatch.samples));
}

void VisionTransformer::classify_backward(const Pass& pass, float* d_x) {
  const kernels::ArenaScope scope(pass.arena);
  const Index samples = samples_, width = options_.width;
  const auto d_output_bias = pass.gradients->leaf(output_.bias, pass.arena);
  kernels::column_sum(pass.context,
                      {.rows = samples, .cols = options_.classes, .x = d_logits_, .sums = d_output_bias.data});
  pass.gradients->add(pass.context, d_output_bias);

  float* d_input = pass.arena.take<float>(samples * width);
  if (options_.head_hidden > 0) {
    float* d_hidden = pass.arena.take<float>(samples * hidden_.out);
    output_.backward(pass, samples, head_activated_, d_logits_, d_hidden);
    const auto d_hidden_bias = pass.gradients->leaf(hidden_.bias, pass.arena);
    kernels::bias_gelu_dropout_backward(pass.context, {.rows = samples,
                                                       .cols = hidden_.out,
                                                       .x = head_hidden_,
                                                       .bias = pass.parameters.value(hidden_.bias),
                                                       .d_y = d_hidden,
                                                       .d_x = d_hidden,
                                                       .d_bias = d_hidden_bias.data});
    pass.gradients->add(pass.context, d_hidden_bias);
    hidden_.backward(pass, samples, head_input_, d_hidden, d_input);
  } else {
    output_.backward(pass, samples, head_input_, d_logits_, d_input);
  }
  // Only CLS reaches the head.
  kernels::fill_zero(pass.context, d_x, samples * options_.num_tokens() * width * Index{sizeof(float)});
  head_norm_->backward(pass, d_input, d_x);
}

}  // namespace switchyard
