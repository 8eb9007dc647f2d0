#include "network/model_options.hpp"

#include <algorithm>
#include <limits>

#include "core/error.hpp"
#include "routing/router.hpp"

namespace switchyard {

RouterOptions router_options(const Config::Ffn& ffn) {
  RouterOptions options;
  options.name = router_row(ffn.router).name;
  options.num_experts = ffn.experts;
  options.top_k = ffn.top_k;
  options.scores = ffn.scores;
  options.renormalise = ffn.renormalise;
  options.granularity = ffn.granularity;
  options.draw = ffn.draw;
  options.hash = ffn.hash;
  options.bias_rate = ffn.bias_rate;
  options.noise_floor = ffn.noise_floor;
  options.gate_init = ffn.gate_init;
  options.gate_tilt = ffn.gate_tilt;
  options.gate_jitter = ffn.gate_jitter;
  options.gate_dropout = ffn.gate_dropout;
  options.balance_loss = ffn.balance_loss;
  options.z_loss = ffn.z_loss;
  options.importance_loss = ffn.importance_loss;
  options.load_loss = ffn.load_loss;
  options.capacity_train = ffn.capacity_train;
  options.capacity_eval = ffn.capacity_eval;
  options.capacity_order = ffn.capacity_order;
  options.gating_dropout = ffn.gating_dropout;
  options.home_ranks = ffn.home_ranks;
  options.home_experts = ffn.home_experts;
  return options;
}

namespace {

kernels::Activation activation_of(const std::string& name) {
  if (name == "relu") return kernels::Activation::kRelu;
  if (name == "cube") return kernels::Activation::kCube;
  return name == "identity" ? kernels::Activation::kIdentity : kernels::Activation::kGelu;
}

}  // namespace

ModelOptions model_options(const Config& config, const ImageShape& image) {
  ModelOptions options;
  options.kind = config.model.kind;
  options.image_height = image.height;
  options.image_width = image.width;
  options.channels = image.channels;
  options.classes = image.classes;
  if (options.is_vit()) options.layers = config.model.layers;
  options.width = config.model.width;
  options.heads = config.model.heads;
  options.patch = config.model.patch;
  options.head_hidden = config.model.head_hidden;
  options.positions = config.model.positions;
  options.input_dropout = config.train.input_dropout;
  options.ffn.kind = config.ffn.kind;
  options.ffn.hidden = config.ffn.hidden;
  options.ffn.num_experts = experts_or_leaves(config);
  options.ffn.tree = {tree_depth(config.ffn), config.ffn.leaf, config.ffn.hardening, config.ffn.region_leak,
                      config.ffn.tree == "hard"};
  options.ffn.average_inference = config.ffn.inference == "average";
  options.ffn.same_start = config.ffn.expert_init == "same";
  options.ffn.shared = config.ffn.shared;
  if (config.ffn.expert_dropout >= 0) options.ffn.expert_dropout = config.ffn.expert_dropout;
  options.ffn.router = router_options(config.ffn);
  if (options.is_vit()) options.mixture_every = config.ffn.every;
  options.ffn.activation = activation_of(config.ffn.activation);
  options.consistency = config.ffn.consistency;
  options.consistency_kind =
      config.ffn.consistency_kind == "adamix" ? kernels::Consistency::kAdamix : kernels::Consistency::kThor;
  options.mean.fill(config.data.normalize ? static_cast<float>(config.data.mean) : 0.0f);
  options.deviation.fill(config.data.normalize ? static_cast<float>(config.data.deviation) : 1.0f);
  const Index side = std::min(image.height, image.width);
  if (config.data.crop_padding > side)
    fail_usage("data.crop_padding = {}: crops beyond the images of {}x{} pixels show nothing of them; take at most {}.",
               config.data.crop_padding, image.height, image.width, side);
  options.crop_padding = static_cast<int>(config.data.crop_padding);
  options.flip = config.data.flip;
  options.flip_vertical = config.data.flip_vertical;
  options.rotation = config.data.rotation;
  options.scaling = config.data.scaling;
  return options;
}

// Random draws tell rows of a batch apart by 32 bits, and slots are numbers of 31.
void check_rows(const Config& config, const ModelOptions& model) {
  constexpr Index kMostRows = std::numeric_limits<std::uint32_t>::max();
  constexpr Index kMostAssignments = std::numeric_limits<std::int32_t>::max();
  const Index rows_of_sample = model.num_tokens() * model.training_passes();
  if (config.train.batch * rows_of_sample > kMostRows)
    fail_usage(
        "train.batch = {}: of {} tokens a sample, a batch has {}, and at most {} work: lower it, or raise model.patch.",
        config.train.batch, rows_of_sample, config.train.batch * rows_of_sample, kMostRows);
  const Index of_token = model.ffn.is_mixture() ? assignments_per_token(model.ffn.router, model.ffn.num_experts) : 1;
  const Index assignments = config.train.microbatch * rows_of_sample * of_token;
  if (assignments > kMostAssignments)
    fail_usage(
        "train.microbatch = {}: of {} tokens a sample with {} choices of experts each, a microbatch has {}, and at "
        "most {} work: lower it, or {}.",
        config.train.microbatch, rows_of_sample, of_token, assignments, kMostAssignments,
        config.ffn.router == "expert_choice" ? "ffn.experts" : "ffn.top_k");
}

kernels::Precision product_precision(const Config& config) {
  if (config.compute.dtype == "bf16") return kernels::Precision::kBf16;
  return config.compute.tf32 ? kernels::Precision::kTf32 : kernels::Precision::kFp32;
}

}  // namespace switchyard
