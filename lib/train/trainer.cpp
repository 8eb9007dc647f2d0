#include "train/trainer.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <limits>

#include "core/error.hpp"

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

namespace {

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

}  // namespace

kernels::Precision product_precision(const Config& config) {
  if (config.compute.dtype == "bf16") return kernels::Precision::kBf16;
  return config.compute.tf32 ? kernels::Precision::kTf32 : kernels::Precision::kFp32;
}

void require_a_batch(const Config& config, const Dataset& dataset) {
  if (dataset.train.count < config.train.batch)
    fail_usage("train.batch = {} is more than the {} training samples of {}; take a smaller batch or more data",
               config.train.batch, dataset.train.count, dataset.name);
}

Trainer::Trainer(const Config& config, const Context& context, Mesh& mesh, const Dataset& dataset)
    : config_(config),
      context_(context),
      mesh_(mesh),
      dataset_(dataset),
      data_attributes_(switchyard::data_attributes(dataset)) {
  const Index batch = config.train.batch;
  steps_per_epoch_ = dataset.train.count / batch;
  total_steps_ = config.run.steps > 0 ? config.run.steps : config.run.epochs * steps_per_epoch_;
  num_microbatches_ = batch / config.train.microbatch;
  local_microbatches_ = num_microbatches_ / mesh.world().size();
  first_microbatch_ = local_microbatches_ * mesh.world().rank();

  const ImageShape image{dataset.height, dataset.width, dataset.channels, dataset.classes};
  check_rows(config, model_options(config, image));
  strands_.push_back({make_model(model_options(config, image), table_), kernels::Arena(context.device), nullptr});
  while (std::ssize(strands_) < num_strands()) {
    ParameterTable same;  // strands share the parameters
    strands_.push_back({make_model(model_options(config, image), same), kernels::Arena(context.device), nullptr});
  }
  turns_ = std::make_unique<Turns>(static_cast<int>(std::ssize(strands_)));
  if (turns_->count() > 1 && mesh.expert_group().size() > 1)
    for (Strand& strand : strands_)
      strand.exchange_stream = std::make_unique<kernels::Stream>(context.device, kernels::Priority::kHigh);
  const Index local_experts = experts_or_leaves(config) / config.parallel.experts;
  parameters_ = std::make_unique<ParameterStore>(context.device, table_, local_experts * mesh.expert_group().rank(),
                                                 local_experts);
  parameters_->initialize(context, config.run.seed);
  packed_weights_ = std::make_unique<PackedWeights>(context, *parameters_);

  // M = m 2^a microbatches: blocks of the odd m. A library reduction may run on rank counts that cut such a block; it
  // promises nothing, so the block is then whatever is left.
  Index block = num_microbatches_ >> std::countr_zero(static_cast<std::uint64_t>(num_microbatches_));
  if (local_microbatches_ % block != 0)
    block = local_microbatches_ >> std::countr_zero(static_cast<std::uint64_t>(local_microbatches_));
  const bool by_library = config.parallel.reduction == "library";
  const bool overlap = overlaps_exchanges() && !by_library && mesh.world().size() > 1;
  const GradientSums::Reduction reduction{.by_library = by_library, .overlap = overlap};
  gradients_ = std::make_unique<GradientSums>(context.device, *parameters_, local_microbatches_, block, mesh, reduction,
                                              num_metrics());
  const Index kinds = mesh.expert_group().size() == 1 ? model().num_kinds_of_steps() : 0;
  // While the last microbatch computes, gradients may be summed over ranks.
  const Index recordable = overlap ? local_microbatches_ - 1 : local_microbatches_;
  if (config.compute.graphs == "auto" && context.device == Device::kCuda && kinds > 0)
    recorded_ = std::make_unique<RecordedMicrobatches>(context, kinds, recordable, *gradients_, *packed_weights_);
  gradient_squares_ = std::make_unique<GradientSquares>(context.device, *parameters_);
  optimizer_ = std::make_unique<Optimizer>(
      context,
      OptimizerOptions{config.train.optimizer, config.train.weight_decay, config.train.momentum, config.train.beta1,
                       config.train.beta2, config.train.epsilon, config.train.gate_lr / config.train.lr},
      parameters_->trained_size());
  const Index schedule_steps =
      config.train.schedule_epochs > 0 ? config.train.schedule_epochs * steps_per_epoch_ : total_steps_;
  schedule_ = {config.train.schedule, config.train.lr, config.train.warmup_steps, schedule_steps};
  score_rules_ = {config.train.patience * steps_per_epoch_, config.train.plateau * steps_per_epoch_,
                  config.train.plateau_factor, config.train.plateau_of == "training"};
}

bool Trainer::overlaps_exchanges() const {
  const std::string& overlap = config_.parallel.overlap;
  return overlap == "on" || (overlap == "auto" && mesh_.world().exchanges_overlap());
}

// Without other ranks' experts there is only the host that waits, for a GPU.
Index Trainer::num_strands() const {
  const bool waits = context_.device != Device::kCpu && model().host_waits();
  const bool overlaps =
      mesh_.expert_group().size() > 1 ? overlaps_exchanges() : waits && config_.parallel.overlap != "off";
  return overlaps && !model().mixture_blocks().empty() ? std::min<Index>(2, local_microbatches_) : 1;
}

StepPlan Trainer::plan() const {
  return {local_microbatches_, recorded_ ? recorded_->count() : 0, std::ssize(strands_), gradients_->overlaps()};
}

Index Trainer::num_arena_allocations() const {
  Index sum = 0;
  for (const Strand& strand : strands_) sum += strand.arena.num_allocations();
  return sum;
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

Microbatch Trainer::load_microbatch(kernels::Arena& arena, const Split& split, std::span<const std::uint32_t> samples,
                                    Index first_sample) {
  const Index size = dataset_.height * dataset_.width * dataset_.channels;
  Microbatch microbatch{.samples = std::ssize(samples), .first_sample = first_sample};
  if (split.features.empty())
    microbatch.images = gather_rows(context_, arena, split.images, size, samples, staged_images_);
  else
    microbatch.features = gather_rows(context_, arena, split.features, size, samples, staged_features_);
  microbatch.labels = gather_rows(context_, arena, split.labels, 1, samples, staged_labels_);
  return microbatch;
}

}  // namespace switchyard
