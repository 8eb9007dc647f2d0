// The vision transformer (Dosovitskiy et al., 2010.11929) of the seed study: patches, learned positions, a CLS token,
// pre-norm blocks, and a classification head on CLS. Forward and backward over one microbatch at a time.

#include <numeric>

#include <fmt/format.h>

#include "core/divisors.hpp"
#include "core/error.hpp"
#include "kernels/api/elementwise.hpp"
#include "model/attention_block.hpp"
#include "model/model.hpp"

namespace switchyard {

namespace {

class VisionTransformer final : public Model {
 public:
  VisionTransformer(const ModelOptions& options, ParameterTable& table);

  Losses forward(const Pass& pass, const Microbatch& microbatch) override;
  void backward(const Pass& pass) override;
  std::string place_name(int place) const override;

 private:
  struct Block {
    AttentionBlock attention;
    LayerNorm norm;
  };

  float* embed(const Pass& pass, const Microbatch& microbatch);
  // (samples, tokens), for the routers that ask for them; null where there are none.
  std::int32_t* patch_words(const Pass& pass) const;
  float* classify(const Pass& pass, const float* x);
  void classify_backward(const Pass& pass, float* d_x);
  void embed_backward(const Pass& pass, float* d_x);
  // Of the tokens that the first block sees.
  kernels::Dropout input_dropout(const Pass& pass) const;

  Linear embedding_;
  ParameterId positions_ = -1, cls_ = -1;
  std::vector<Block> blocks_;
  std::unique_ptr<LayerNorm> head_norm_;
  Linear hidden_, output_;  // hidden_ only where options_.head_hidden > 0

  // Of the microbatch at hand:
  Index first_sample_ = 0;        // among those of all passes
  float* patches_ = nullptr;      // (samples * patches, patch_size)
  kernels::Operand head_input_;   // (samples, width)
  float* head_hidden_ = nullptr;  // (samples, head_hidden): without bias
  kernels::Operand head_activated_;
};

VisionTransformer::VisionTransformer(const ModelOptions& options, ParameterTable& table) : Model(options) {
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
    blocks_.push_back({AttentionBlock(table, prefix, layer, options.width, options.heads),
                       LayerNorm(table, prefix + ".norm2", options.width)});
    FfnOptions ffn = options.ffn;
    ffn.width = ffn.out = options.width;
    ffn.prefix = prefix;
    add_ffn(ffn, table);
  }
  head_norm_ = std::make_unique<LayerNorm>(table, "head.norm", options.width);
  Index head_width = options.width;
  if (options.head_hidden > 0) {
    hidden_ = Linear::add(table, "head.hidden.weight", "head.hidden.bias", head_width, options.head_hidden);
    head_width = options.head_hidden;
  }
  output_ = Linear::add(table, "head.output.weight", "head.output.bias", head_width, options.classes);
  logits_bias_ = output_.bias;
}

Model::Losses VisionTransformer::forward(const Pass& pass, const Microbatch& microbatch) {
  begin(pass, microbatch);
  first_sample_ = passes_ * microbatch.first_sample;
  const Index tokens = options_.num_tokens();
  const Index size = samples_ * tokens * options_.width;
  int place = 0;
  const auto look = [&](const float* x) {
    if (pass.probe) pass.probe->look(pass.context, place++, x, size);
  };

  AuxiliaryLosses auxiliary;
  const float* x = embed(pass, microbatch);
  const std::int32_t* words = patch_words(pass);
  look(x);
  for (Index i = 0; i < options_.layers; ++i) {
    Block& block = blocks_[static_cast<std::size_t>(i)];
    x = block.attention.forward(pass, samples_, tokens, first_sample_, x);
    look(x);
    Ffn& ffn = block_ffn(i);
    Ffn::Input input{samples_, tokens, first_sample_, {}, x, words, passes_};
    const InputForm form = ffn.prepare(pass, input);
    input.x = block.norm.forward(pass, samples_ * tokens, x, options_.width, form);
    input.slots = form.slots;
    x = ffn.forward(pass, input, &auxiliary);
    look(x);
  }
  Losses losses = measure(pass, microbatch, classify(pass, x));
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
  for (Index layer = options_.layers; layer-- > 0;) {
    Block& block = blocks_[static_cast<std::size_t>(layer)];
    {
      const kernels::ArenaScope scope(pass.arena);
      block.norm.backward(pass, block_ffn(layer).backward(pass, d_x, true), d_x);
    }
    block.attention.backward(pass, d_x);
    pass.gradients->reduce_complete(pass.context);
  }
  embed_backward(pass, d_x);
}

std::int32_t* VisionTransformer::patch_words(const Pass& pass) const {
  const RouterOptions& router = options_.ffn.router;
  if (mixture_blocks().empty() || router.name != "hash" || router.hash != "content") return nullptr;
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
  patches_ = image_patches(pass, microbatch, options_.patch);
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
  if (const kernels::Dropout dropout = input_dropout(pass); dropout.probability > 0)
    kernels::bias_dropout_residual(
        pass.context, {.rows = samples_ * options_.num_tokens(), .cols = width, .x = x, .y = x, .dropout = dropout});
  return x;
}

kernels::Dropout VisionTransformer::input_dropout(const Pass& pass) const {
  kernels::Dropout dropout = pass.dropout_for(Purpose::kInputDropout, 0, first_sample_ * options_.num_tokens());
  dropout.probability = pass.training ? static_cast<float>(options_.input_dropout) : 0.0f;
  return dropout;
}

void VisionTransformer::embed_backward(const Pass& pass, float* d_x) {
  const kernels::ArenaScope scope(pass.arena);
  const Index width = options_.width, rows = samples_ * options_.num_patches();
  const auto d_bias = pass.gradients->leaf(embedding_.bias, pass.arena);
  const auto d_positions = pass.gradients->leaf(positions_, pass.arena);
  const auto d_cls = pass.gradients->leaf(cls_, pass.arena);
  // Rows of the position table that no patch uses.
  const Index used = options_.num_patches() * width;
  kernels::fill_zero(pass.context, d_positions.data + used, (options_.positions * width - used) * Index{sizeof(float)});
  if (const kernels::Dropout dropout = input_dropout(pass); dropout.probability > 0)
    kernels::dropout_backward(
        pass.context,
        {.rows = samples_ * options_.num_tokens(), .cols = width, .d_y = d_x, .d_x = d_x, .dropout = dropout});
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

float* VisionTransformer::classify(const Pass& pass, const float* x) {
  head_input_ = head_norm_->forward(pass, samples_, x, options_.num_tokens() * options_.width);
  kernels::Operand features = head_input_;
  if (options_.head_hidden > 0) {
    head_hidden_ = pass.arena.take<float>(samples_ * hidden_.out);
    const kernels::NewOperand activated = pass.operand(samples_, hidden_.out);
    hidden_.forward(pass, samples_, head_input_, head_hidden_);
    kernels::bias_activation_dropout(pass.context, {.rows = samples_,
                                                    .cols = hidden_.out,
                                                    .x = head_hidden_,
                                                    .bias = pass.parameters.value(hidden_.bias),
                                                    .y = activated});
    features = head_activated_ = activated;
  }
  float* logits = pass.arena.take<float>(samples_ * options_.classes);
  output_.forward(pass, samples_, features, logits);
  return logits;
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
    float* d_activated = pass.arena.take<float>(samples * hidden_.out);
    output_.backward(pass, samples, head_activated_, d_logits_, d_activated);
    const kernels::NewOperand d_hidden = pass.operand_over(d_activated, samples, hidden_.out);
    const auto d_hidden_bias = pass.gradients->leaf(hidden_.bias, pass.arena);
    kernels::bias_activation_dropout_backward(pass.context, {.rows = samples,
                                                             .cols = hidden_.out,
                                                             .x = head_hidden_,
                                                             .bias = pass.parameters.value(hidden_.bias),
                                                             .d_y = d_activated,
                                                             .d_x = d_hidden,
                                                             .d_bias = d_hidden_bias.data});
    pass.gradients->add(pass.context, d_hidden_bias);
    hidden_.backward(pass, samples, head_input_, d_hidden, d_input);
  } else {
    output_.backward(pass, samples, head_input_, d_logits_, d_input);
  }
  // Only CLS reaches the head.
  kernels::fill_zero(pass.context, d_x, samples * options_.num_tokens() * width * Index{sizeof(float)});
  head_norm_->backward(pass, {d_input}, d_x);
}

}  // namespace

std::unique_ptr<Model> make_vit(const ModelOptions& options, ParameterTable& table) {
  return std::make_unique<VisionTransformer>(options, table);
}

}  // namespace switchyard
