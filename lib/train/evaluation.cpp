// Evaluation: a split in microbatches, shared out over ranks. Losses are added sample by sample in order, so the
// figures are the same bits on any number of ranks.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/collectives.hpp"
#include "core/error.hpp"
#include "train/trainer.hpp"

namespace switchyard {

Measures Trainer::measure(const Interrupt& interrupt) {
  Measures measures{evaluate(dataset_.test, "test", interrupt), {}, {}};
  if (dataset_.validation.count > 0) measures.validation = evaluate(dataset_.validation, "validation", interrupt);
  if (config_.run.measure_training) measures.training = evaluate(dataset_.train, "training", interrupt);
  return measures;
}

void Trainer::observe(const Measures& measures) {
  switchyard::observe(scores_, score_rules_, step_, measures);
  lacks_evaluation_ = false;
}

Evaluation Trainer::evaluate(const Split& split, const std::string& name, const Interrupt& interrupt) {
  const double start = seconds_now();
  PhaseSeconds unused;
  Strand& strand = strands_.front();
  const Pass pass{.context = context_,
                  .arena = strand.arena,
                  .parameters = *parameters_,
                  .expert_group = mesh_.expert_group(),
                  .seconds = unused,
                  .packed_weights = packed_weights_.get(),
                  .seed = config_.run.seed,
                  .step = step_,
                  .precision = product_precision(config_)};
  strand.model->prepare_evaluation(pass);

  // Each rank takes the same number of microbatches, some of which may be short or empty: experts need all ranks.
  const Index size = config_.train.microbatch, count = split.count;
  const Index per_rank = ceil_div(ceil_div(count, size), mesh_.world().size());
  const Index first = per_rank * size * mesh_.world().rank();
  std::vector<std::uint32_t> samples(static_cast<std::size_t>(size));
  std::vector<float> local(static_cast<std::size_t>(2 * per_rank * size));  // losses, then 1 for each correct answer
  const auto evaluate_microbatch = [&](const Pass& with, Index i) {
    const kernels::ArenaScope activations(strand.arena);
    const Index begin = std::min(count, first + i * size), end = std::min(count, begin + size);
    std::iota(samples.begin(), samples.end(), static_cast<std::uint32_t>(begin));
    const Microbatch microbatch =
        load_microbatch(strand.arena, split, std::span(samples).first(static_cast<std::size_t>(end - begin)), begin);
    const Model::Losses losses = strand.model->forward(with, microbatch);
    const Index bytes = (end - begin) * Index{sizeof(float)};
    kernels::copy_to_host(context_, local.data() + i * size, losses.loss, bytes);
    kernels::copy_to_host(context_, local.data() + (per_rank + i) * size, losses.correct, bytes);
  };
  for (Index i = 0; i < per_rank; ++i) {
    if (i % local_microbatches_ == 0) interrupt();
    evaluate_microbatch(pass, i);
  }

  std::vector<float> all(local.size() * static_cast<std::size_t>(mesh_.world().size()));
  all_gather(mesh_.world(), "losses of the " + name + " split", local.data(),
             static_cast<Index>(local.size() * sizeof(float)), all.data());
  Evaluation evaluation;
  for (Index sample = 0; sample < count; ++sample) {
    const Index rank = sample / (per_rank * size), place = sample % (per_rank * size);
    const float* of_rank = all.data() + rank * 2 * per_rank * size;
    evaluation.loss += double{of_rank[place]};
    evaluation.accuracy += double{of_rank[per_rank * size + place]};
  }
  evaluation.loss /= static_cast<double>(count);
  evaluation.accuracy *= 100 / static_cast<double>(count);
  evaluation.seconds = seconds_now() - start;
  if (std::isfinite(evaluation.loss)) return evaluation;

  // Once more, looking at every layer.
  FiniteProbe probe;
  Pass probing = pass;
  probing.probe = &probe;
  for (Index i = 0; i < per_rank; ++i) evaluate_microbatch(probing, i);
  throw Error(fmt::format("step {}: the {} loss is {}; {}. Go on from an earlier checkpoint, or train anew with a "
                          "lower train.lr, train.clip = 1, or some train.warmup_steps.",
                          step_, name, std::isnan(evaluation.loss) ? "not a number" : "infinite",
                          first_bad_layer(probe, "every layer's output is finite")),
              ExitCode::kDiverged);
}

}  // namespace switchyard
