// What a step measures. Metrics are leaves of the same tree as gradients: scalars, then for each block with a mixture
// the tokens that each expert was chosen for, those that were dropped, sums of weights, and the sum of the gate's
// entropy over tokens; for each block with a tree sums over tokens of its nodes' entropy and its leaves' shares.
#include <iterator>
#include <limits>

#include "kernels/api/elementwise.hpp"
#include "kernels/api/gate.hpp"
#include "train/trainer.hpp"

namespace switchyard {

namespace {

enum Metric : std::size_t { kLoss, kCorrect, kBalance, kZ, kImportance, kLoad, kConsistency, kHardening, kNumScalars };

}  // namespace

Index Trainer::num_metrics() const {
  const auto mixtures = std::ssize(model().mixture_blocks()), trees = std::ssize(model().tree_blocks());
  const Index parts = experts_or_leaves(config_);
  return Index{kNumScalars} + mixtures * (3 * parts + 1) + trees * (2 * parts - 1);
}

void Trainer::add_metrics(const Pass& pass, const Model& model, const Model::Losses& losses) {
  const auto leaf = gradients_->metrics_leaf(pass.arena);
  for (const auto& [place, values] : {std::pair{kLoss, losses.loss}, std::pair{kCorrect, losses.correct}})
    kernels::column_sum(pass.context, {.rows = losses.rows, .cols = 1, .x = values, .sums = leaf.data + place});
  const auto write = [&](float* device, std::span<const float> values) {
    kernels::copy_to_device(pass.context, device, values.data(), static_cast<Index>(values.size_bytes()));
  };
  const AuxiliaryLosses& auxiliary = losses.auxiliary;
  const float scalars[] = {static_cast<float>(auxiliary.balance),     static_cast<float>(auxiliary.z),
                           static_cast<float>(auxiliary.importance),  static_cast<float>(auxiliary.load),
                           static_cast<float>(auxiliary.consistency), static_cast<float>(auxiliary.hardening)};
  write(leaf.data + kBalance, scalars);

  float* of_layer = leaf.data + kNumScalars;
  for (const Index block : model.mixture_blocks()) {
    const RoutePlan& plan = *model.ffn(block).plan();
    const Index experts = plan.num_experts;
    counts_.assign(plan.chosen.begin(), plan.chosen.end());
    for (std::size_t e = 0; e < plan.chosen.size(); ++e)
      counts_.push_back(static_cast<float>(plan.chosen[e] - plan.tokens_per_expert[e]));
    write(of_layer, counts_);
    kernels::route_statistics(pass.context, {.tokens = plan.tokens,
                                             .num_experts = experts,
                                             .top_k = plan.top_k,
                                             .experts = plan.experts,
                                             .weights = plan.weights,
                                             .probabilities = plan.probabilities,
                                             .weight_sums = of_layer + 2 * experts,
                                             .entropy_sum = of_layer + 3 * experts});
    of_layer += 3 * experts + 1;
  }
  const Index leaves = experts_or_leaves(config_), rows = losses.rows * model.options().num_tokens();
  for (const Index block : model.tree_blocks()) {
    const TreeState& tree = *model.ffn(block).tree();
    kernels::copy(pass.context, of_layer, tree.entropy_sums, (leaves - 1) * Index{sizeof(float)});
    kernels::column_sum(pass.context, {.rows = rows, .cols = leaves, .x = tree.mixture, .sums = of_layer + leaves - 1});
    of_layer += 2 * leaves - 1;
  }
  gradients_->add(pass.context, leaf);
}

StepMetrics Trainer::read_metrics(const GradientSums::Totals& totals) {
  std::vector<float> sums(static_cast<std::size_t>(num_metrics()));
  const kernels::HostCopy copies[] = {{sums.data(), totals.metrics, num_metrics() * Index{sizeof(float)}},
                                      gradient_squares_->sum(context_, totals.gradients)};
  kernels::copy_to_host(context_, copies);
  const auto of_microbatches = [&](Metric metric) {
    return double{sums[metric]} / static_cast<double>(num_microbatches_);
  };
  StepMetrics metrics;
  metrics.step = step_ + 1;
  metrics.epoch = static_cast<double>(metrics.step) / static_cast<double>(steps_per_epoch_);
  metrics.loss = double{sums[kLoss]} / static_cast<double>(batch_rows());
  metrics.accuracy = 100 * double{sums[kCorrect]} / static_cast<double>(batch_rows());
  metrics.auxiliary = {of_microbatches(kBalance), of_microbatches(kZ),           of_microbatches(kImportance),
                       of_microbatches(kLoad),    of_microbatches(kConsistency), of_microbatches(kHardening)};
  metrics.gradient_norm = gradient_squares_->norm(mesh_.expert_group());
  metrics.routing = read_routing(std::span(sums).subspan(kNumScalars));
  metrics.trees = read_trees(std::span(sums).subspan(kNumScalars));
  return metrics;
}

RoutingLoad Trainer::read_routing(std::span<const float> sums) const {
  RoutingLoad load;
  load.layers = static_cast<Index>(model().mixture_blocks().size());
  if (load.layers == 0) return load;
  load.experts = config_.ffn.experts;
  const auto experts = static_cast<std::size_t>(load.experts);
  const auto batch_tokens = static_cast<float>(batch_rows() * model().options().num_tokens());
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  for (const Index block : model().mixture_blocks()) {
    for (std::size_t e = 0; e < experts; ++e) {
      load.tokens.push_back(sums[e]);
      load.dropped.push_back(sums[experts + e]);
      load.weight.push_back(sums[e] > 0 ? sums[2 * experts + e] / sums[e] : kNone);
    }
    load.gate_entropy.push_back(model().ffn(block).plan()->probabilities ? sums[3 * experts] / batch_tokens : kNone);
    sums = sums.subspan(3 * experts + 1);
  }
  return load;
}

TreeLoad Trainer::read_trees(std::span<const float> sums) const {
  TreeLoad load{
      .layers = std::ssize(model().tree_blocks()), .leaves = experts_or_leaves(config_), .entropy = {}, .share = {}};
  const auto leaves = static_cast<std::size_t>(load.leaves);
  const auto batch_tokens = static_cast<float>(batch_rows() * model().options().num_tokens());
  for (Index layer = 0; layer < load.layers; ++layer) {
    for (std::size_t i = 0; i < 2 * leaves - 1; ++i)
      (i < leaves - 1 ? load.entropy : load.share).push_back(sums[i] / batch_tokens);
    sums = sums.subspan(2 * leaves - 1);
  }
  return load;
}

}  // namespace switchyard
