#include "train/trainer.hpp"

#include <algorithm>
#include <bit>
#include <iterator>

#include "core/error.hpp"

namespace switchyard {

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
      data_attributes_(switchyard::data_attributes(dataset)),
      network_(config, context, mesh, {dataset.height, dataset.width, dataset.channels, dataset.classes}) {
  const Index batch = config.train.batch;
  steps_per_epoch_ = dataset.train.count / batch;
  total_steps_ = config.run.steps > 0 ? config.run.steps : config.run.epochs * steps_per_epoch_;
  num_microbatches_ = batch / config.train.microbatch;
  local_microbatches_ = num_microbatches_ / mesh.world().size();
  first_microbatch_ = local_microbatches_ * mesh.world().rank();

  strands_.push_back({&network_.model(), &network_.arena(), nullptr});
  while (std::ssize(strands_) < num_strands()) {
    ParameterTable same;  // strands share the parameters
    OtherActivations& other = *others_.emplace_back(std::make_unique<OtherActivations>(
        OtherActivations{make_model(model().options(), same), kernels::Arena(context.device)}));
    strands_.push_back({other.model.get(), &other.arena, nullptr});
  }
  turns_ = std::make_unique<Turns>(static_cast<int>(std::ssize(strands_)));
  if (turns_->count() > 1 && mesh.expert_group().size() > 1)
    for (Strand& strand : strands_)
      strand.exchange_stream = std::make_unique<kernels::Stream>(context.device, kernels::Priority::kHigh);

  // M = m 2^a microbatches: blocks of the odd m. A library reduction may run on rank counts that cut such a block; it
  // promises nothing, so the block is then whatever is left.
  Index block = num_microbatches_ >> std::countr_zero(static_cast<std::uint64_t>(num_microbatches_));
  if (local_microbatches_ % block != 0)
    block = local_microbatches_ >> std::countr_zero(static_cast<std::uint64_t>(local_microbatches_));
  const bool by_library = config.parallel.reduction == "library";
  const bool overlap = overlaps_exchanges() && !by_library && mesh.world().size() > 1;
  const GradientSums::Reduction reduction{.by_library = by_library, .overlap = overlap};
  gradients_ = std::make_unique<GradientSums>(context.device, parameters(), local_microbatches_, block, mesh, reduction,
                                              num_metrics());
  const Index kinds = mesh.expert_group().size() == 1 ? model().num_kinds_of_steps() : 0;
  // While the last microbatch computes, gradients may be summed over ranks.
  const Index recordable = overlap ? local_microbatches_ - 1 : local_microbatches_;
  if (config.compute.graphs == "auto" && context.device == Device::kCuda && kinds > 0)
    recorded_ =
        std::make_unique<RecordedMicrobatches>(context, kinds, recordable, *gradients_, network_.packed_weights());
  gradient_squares_ = std::make_unique<GradientSquares>(context.device, parameters());
  optimizer_ = std::make_unique<Optimizer>(
      context,
      OptimizerOptions{config.train.optimizer, config.train.weight_decay, config.train.momentum, config.train.beta1,
                       config.train.beta2, config.train.epsilon, config.train.gate_lr / config.train.lr},
      parameters().trained_size());
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

void Trainer::observe(const Measures& measures) {
  switchyard::observe(scores_, score_rules_, step_, measures);
  lacks_evaluation_ = false;
}

Index Trainer::num_arena_allocations() const {
  Index sum = 0;
  for (const Strand& strand : strands_) sum += strand.arena->num_allocations();
  return sum;
}

}  // namespace switchyard
