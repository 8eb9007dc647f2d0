// Evaluation: a split in microbatches, shared out over ranks. Losses are added sample by sample in order, so the
// figures are the same bits on any number of ranks.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "network/model_options.hpp"
#include "network/network.hpp"

namespace switchyard {

Measures Network::measure(const Dataset& dataset, Index step, const Interrupt& interrupt) {
  Measures measures{evaluate(dataset.test, "test", step, interrupt), {}, {}};
  if (dataset.validation.count > 0) measures.validation = evaluate(dataset.validation, "validation", step, interrupt);
  if (config_.run.measure_training) measures.training = evaluate(dataset.train, "training", step, interrupt);
  return measures;
}

Pass Network::evaluation_pass(Index step, PhaseSeconds& seconds) {
  return {.context = context_,
          .arena = arena_,
          .parameters = *parameters_,
          .expert_group = mesh_.expert_group(),
          .seconds = seconds,
          .packed_weights = packed_weights_.get(),
          .seed = config_.run.seed,
          .step = step,
          .precision = product_precision(config_)};
}

Network::Share Network::share_of(const Split& split) const {
  const Index size = config_.train.microbatch, ranks = mesh_.world().size();
  const Index per_rank = ceil_div(ceil_div(split.count, size), ranks);
  return {size, per_rank, per_rank * size * mesh_.world().rank()};
}

std::span<const std::uint32_t> Network::samples_of(const Split& split, const Share& share, Index i) {
  const Index begin = std::min(split.count, share.first + i * share.microbatch);
  samples_.resize(static_cast<std::size_t>(std::min(split.count, begin + share.microbatch) - begin));
  std::iota(samples_.begin(), samples_.end(), static_cast<std::uint32_t>(begin));
  return samples_;
}

Evaluation Network::evaluate(const Split& split, const std::string& name, Index step, const Interrupt& interrupt) {
  const double start = seconds_now();
  PhaseSeconds unused;
  const Pass pass = evaluation_pass(step, unused);
  model_->prepare_evaluation(pass);

  const Share share = share_of(split);
  const Index of_rank = share.per_rank * share.microbatch;          // samples, or places for them
  std::vector<float> local(static_cast<std::size_t>(2 * of_rank));  // losses, then 1 for each correct answer
  const auto evaluate_microbatch = [&](const Pass& with, Index i) {
    const kernels::ArenaScope activations(arena_);
    const auto samples = samples_of(split, share, i);
    const Index first = std::min(split.count, share.first + i * share.microbatch);
    const Model::Losses losses = model_->forward(with, load_microbatch(arena_, split, samples, first));
    const auto bytes = static_cast<Index>(samples.size() * sizeof(float));
    kernels::copy_to_host(context_, local.data() + i * share.microbatch, losses.loss, bytes);
    kernels::copy_to_host(context_, local.data() + of_rank + i * share.microbatch, losses.correct, bytes);
  };
  for (Index i = 0; i < share.per_rank; ++i) {
    if (i % microbatches_of_a_step() == 0) interrupt();
    evaluate_microbatch(pass, i);
  }

  std::vector<float> all(local.size() * static_cast<std::size_t>(mesh_.world().size()));
  all_gather(mesh_.world(), "losses of the " + name + " split", local.data(),
             static_cast<Index>(local.size() * sizeof(float)), all.data());
  Evaluation evaluation;
  for (Index sample = 0; sample < split.count; ++sample) {
    const float* const of_its_rank = all.data() + sample / of_rank * 2 * of_rank;
    evaluation.loss += double{of_its_rank[sample % of_rank]};
    evaluation.accuracy += double{of_its_rank[of_rank + sample % of_rank]};
  }
  evaluation.loss /= static_cast<double>(split.count);
  evaluation.accuracy *= 100 / static_cast<double>(split.count);
  evaluation.seconds = seconds_now() - start;
  if (std::isfinite(evaluation.loss)) return evaluation;

  // Once more, looking at every layer.
  FiniteProbe probe;
  Pass probing = pass;
  probing.probe = &probe;
  for (Index i = 0; i < share.per_rank; ++i) evaluate_microbatch(probing, i);
  throw Error(fmt::format("step {}: the {} loss is {}; {}. Go on from an earlier checkpoint, or train anew with a "
                          "lower train.lr, train.clip = 1, or some train.warmup_steps.",
                          step, name, std::isnan(evaluation.loss) ? "not a number" : "infinite",
                          first_bad_layer(probe, "every layer's output is finite")),
              ExitCode::kDiverged);
}

}  // namespace switchyard
