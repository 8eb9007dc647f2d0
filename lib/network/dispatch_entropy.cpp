// Which clusters of the data each expert is sent. Counts are whole numbers, so no order of summation matters.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/collectives.hpp"
#include "network/network.hpp"

namespace switchyard {

namespace {

// counts: (experts, clusters)
double entropy_within_experts(const std::vector<Index>& counts, std::size_t num_clusters) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), Index{0}));
  double entropy = 0;
  for (auto expert = counts.begin(); expert != counts.end(); expert += static_cast<std::ptrdiff_t>(num_clusters)) {
    const auto end = expert + static_cast<std::ptrdiff_t>(num_clusters);
    const auto of_expert = static_cast<double>(std::accumulate(expert, end, Index{0}));
    for (auto count = expert; count != end; ++count)
      if (*count > 0)
        entropy -= static_cast<double>(*count) / total * std::log(static_cast<double>(*count) / of_expert);
  }
  return entropy;
}

}  // namespace

std::optional<double> Network::dispatch_entropy(const Split& split, Index step, const Interrupt& interrupt) {
  const std::vector<std::int32_t>& clusters = split.clusters;
  if (clusters.empty() || model().mixture_blocks().empty() || config_.ffn.inference == "average") return std::nullopt;
  const auto num_clusters = static_cast<std::size_t>(*std::max_element(clusters.begin(), clusters.end()) + 1);
  const Index block = model().mixture_blocks()[0];
  std::vector<Index> counts(static_cast<std::size_t>(config_.ffn.experts) * num_clusters);
  std::vector<std::int32_t> experts;
  PhaseSeconds unused;
  const Pass pass = evaluation_pass(step, unused);
  model_->prepare_evaluation(pass);
  const Share share = share_of(split);
  for (Index i = 0; i < share.per_rank; ++i) {
    if (i % microbatches_of_a_step() == 0) interrupt();
    const kernels::ArenaScope activations(arena_);
    const auto samples = samples_of(split, share, i);
    const Index first = std::min(split.count, share.first + i * share.microbatch);
    model_->forward(pass, load_microbatch(arena_, split, samples, first));
    const RoutePlan& plan = *model_->ffn(block).plan();
    experts.resize(static_cast<std::size_t>(plan.tokens * plan.top_k));
    kernels::copy_to_host(context_, experts.data(), plan.experts,
                          plan.tokens * plan.top_k * Index{sizeof(std::int32_t)});
    const auto rows_per_sample =
        std::ssize(experts) / std::max<Index>(1, std::ssize(samples));  // choices, of all tokens
    for (Index row = 0; row < std::ssize(experts); ++row) {
      const std::int32_t expert = experts[static_cast<std::size_t>(row)];
      const std::int32_t cluster = clusters[static_cast<std::size_t>(first + row / rows_per_sample)];
      if (expert >= 0) ++counts[static_cast<std::size_t>(expert) * num_clusters + static_cast<std::size_t>(cluster)];
    }
  }
  std::vector<Index> all(counts.size() * static_cast<std::size_t>(mesh_.world().size()));
  all_gather(mesh_.world(), "dispatch entropy", counts.data(), static_cast<Index>(counts.size() * sizeof(Index)),
             all.data());
  for (std::size_t i = counts.size(); i < all.size(); ++i) all[i % counts.size()] += all[i];
  all.resize(counts.size());
  return entropy_within_experts(all, num_clusters);
}

}  // namespace switchyard
