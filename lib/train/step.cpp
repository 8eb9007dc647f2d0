// One training step, top to bottom.
#include <cmath>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "network/model_options.hpp"
#include "train/trainer.hpp"

namespace switchyard {

StepMetrics Trainer::train_step() {
  const double start = seconds_now();
  PhaseSeconds seconds;
  ProfiledStep profiled(context_.profile);
  // A profile times each launch, and what a rank asks for is not the same in every step.
  if (recorded_) recorded_->begin_step(step_, model().kind_of_step(config_.run.seed, step_), !context_.profile);

  // This rank's microbatches, in lockstep with its expert group; gradients go into the running tree. Where they take
  // turns, strand s of n has microbatches s, s + n, ...: each adds every gradient after the one before. One goes on
  // while another's tokens travel, or, where none do, while the host waits for what a GPU computes for the other. A
  // profile times one kernel after the other.
  Turns* const turns = turns_->count() > 1 && !context_.profile ? turns_.get() : nullptr;
  const bool tokens_travel = mesh_.expert_group().size() > 1;
  microbatch_context_ = context_;
  if (!tokens_travel) microbatch_context_.turns = turns;
  const auto train_microbatches = [&](int first) {
    Strand& strand = strands_[static_cast<std::size_t>(first)];
    Pass pass = training_pass(microbatch_context_, strand, seconds);
    if (turns && tokens_travel) pass.exchange_turns = {turns, strand.exchange_stream->get()};
    for (Index i = first; i < local_microbatches_; i += turns_->count()) {
      turns_->give("microbatch");
      profiled.phase("load");
      const kernels::ArenaScope activations(*strand.arena);
      const Microbatch microbatch = load_training_microbatch(*strand.arena, i);
      const auto compute = [&](const Pass& with) {
        profiled.phase("forward");
        const Model::Losses losses = strand.model->forward(with, microbatch);
        profiled.phase("backward");
        strand.model->backward(with);
        add_metrics(with, *strand.model, losses);
      };
      if (recorded_)
        recorded_->run(pass, i, microbatch, compute);
      else
        compute(pass);
    }
  };
  turns_->take(train_microbatches);

  // Dense gradients over all ranks, experts' over their replicas: the upper levels of the same tree.
  profiled.phase("wait");
  {
    const ScopedSeconds waiting(seconds.wait);
    barrier(mesh_.world(), "end of the backward pass");
  }
  profiled.phase("reduce");
  GradientSums::Totals totals;
  {
    const ScopedSeconds reducing(seconds.reduce);
    totals = gradients_->finish(context_);
  }

  profiled.phase("update");
  StepMetrics metrics = read_metrics(totals);
  if (!std::isfinite(metrics.loss) || !std::isfinite(metrics.gradient_norm)) fail_not_finite(metrics);

  // As torch.nn.utils.clip_grad_norm_.
  double scale = 1;
  if (config_.train.clip > 0) scale = std::min(1.0, config_.train.clip / (metrics.gradient_norm + 1e-6));
  metrics.learning_rate = learning_rate(schedule_, step_) * rate_factor(scores_, score_rules_);
  optimizer_->update(context_, parameters(), totals.gradients, *gradient_squares_, metrics.learning_rate, scale,
                     step_ + 1);
  strands_.front().model->after_step(context_, metrics.routing.tokens, parameters());

  metrics.prepares = recorded_ && recorded_->prepares();
  ++step_;
  metrics.seconds = seconds_now() - start;
  metrics.phases = seconds;
  return metrics;
}

Pass Trainer::training_pass(const Context& context, Strand& strand, PhaseSeconds& seconds) {
  return {.context = context,
          .arena = *strand.arena,
          .parameters = parameters(),
          .expert_group = mesh_.expert_group(),
          .seconds = seconds,
          .gradients = gradients_.get(),
          .packed_weights = &network_.packed_weights(),
          .seed = config_.run.seed,
          .step = step_,
          .training = true,
          .dropout = static_cast<float>(config_.train.dropout),
          .precision = product_precision(config_),
          .loss_scale = 1 / static_cast<double>(config_.train.batch),
          .auxiliary_scale = 1 / static_cast<double>(num_microbatches_),
          .num_microbatches = num_microbatches_,
          .microbatches_per_rank = local_microbatches_};
}

std::span<const std::uint32_t> Trainer::batch_samples() {
  const Index epoch = step_ / steps_per_epoch_;
  if (epoch != order_epoch_) {
    order_ = epoch_order(config_.run.seed, epoch, dataset_.train.count);
    order_epoch_ = epoch;
  }
  const Index first = step_ % steps_per_epoch_ * config_.train.batch;
  return std::span(order_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(config_.train.batch));
}

Microbatch Trainer::load_training_microbatch(kernels::Arena& arena, Index i) {
  const Index size = config_.train.microbatch, first_sample = (first_microbatch_ + i) * size;
  const auto samples = batch_samples().subspan(static_cast<std::size_t>(first_sample), static_cast<std::size_t>(size));
  return network_.load_microbatch(arena, dataset_.train, samples, first_sample);
}

// The forward pass once more, looking at every layer: parameters have not changed, so neither has the failure.
void Trainer::fail_not_finite(const StepMetrics& metrics) {
  PhaseSeconds unused;
  FiniteProbe probe;
  Strand& strand = strands_.front();
  Pass pass = training_pass(context_, strand, unused);
  pass.gradients = nullptr;
  pass.probe = &probe;
  for (Index i = 0; i < local_microbatches_; ++i) {
    const kernels::ArenaScope activations(*strand.arena);
    strand.model->forward(pass, load_training_microbatch(*strand.arena, i));
  }
  const std::string where =
      network_.first_bad_layer(probe, "every layer's output is finite, so a gradient overflowed in the backward pass");
  const auto text = [](double value) { return std::isnan(value) ? "not a number" : fmt::format("{:.6g}", value); };
  throw Error(fmt::format("step {}: the loss is {} and the gradient norm {}; {}. Parameters were not changed. Try a "
                          "lower train.lr, train.clip = 1, or some train.warmup_steps.",
                          metrics.step, text(metrics.loss), text(metrics.gradient_norm), where),
              ExitCode::kDiverged);
}

}  // namespace switchyard
