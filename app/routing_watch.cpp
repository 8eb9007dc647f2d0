#include "app/routing_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace switchyard {

namespace {

std::string advice(const std::string& router) {
  if (router == "hash") return "the hash is uneven over these tokens";
  if (router == "noisy_top_k") return "try a higher ffn.importance_loss or ffn.load_loss";
  if (router == "loss_free") return "try a higher ffn.bias_rate";
  return "try ffn.balance_loss or ffn.router = noisy_top_k";
}

}  // namespace

RoutingWatch::RoutingWatch(std::string router, Index top_k, std::vector<Index> blocks)
    : router_(std::move(router)), top_k_(top_k), blocks_(std::move(blocks)) {}

std::vector<std::string> RoutingWatch::step(Index step, const RoutingLoad& load) {
  std::vector<std::string> warnings;
  if (router_ == "random" || load.experts < 2 || (said_dominates_ && said_starves_)) return warnings;
  if (num_steps_ == 0) {
    first_step_ = step;
    tokens_.assign(load.tokens.size(), 0);
  }
  std::transform(tokens_.begin(), tokens_.end(), load.tokens.begin(), tokens_.begin(), std::plus<>());
  if (++num_steps_ < kWindow) return warnings;
  judge_window(load, warnings);
  num_steps_ = 0;
  return warnings;
}

void RoutingWatch::judge_window(const RoutingLoad& shape, std::vector<std::string>& warnings) {
  Worst most{.share = 0}, least{.share = 1};
  for (Index layer = 0; layer < shape.layers; ++layer) {
    const auto first = tokens_.begin() + layer * shape.experts, last = first + shape.experts;
    const double choices = std::accumulate(first, last, 0.0);
    if (choices == 0) continue;
    const auto [low, high] = std::minmax_element(first, last);
    const double per_token = static_cast<double>(top_k_) / choices;
    if (*high * per_token > most.share) most = {layer, high - first, *high * per_token};
    if (*low * per_token < least.share) least = {layer, low - first, *low * per_token};
  }
  const double even = static_cast<double>(top_k_) / static_cast<double>(shape.experts);
  if (!said_dominates_ && most.share > (1 + even) / 2) {
    said_dominates_ = true;
    warnings.push_back(fmt::format("{} takes {:.0f} % of tokens since step {}: {}", place(most), 100 * most.share,
                                   first_step_, advice(router_)));
  }
  if (!said_starves_ && least.share < 0.1 * even) {
    said_starves_ = true;
    warnings.push_back(fmt::format("{} has had {:.1f} % of tokens since step {}: {}", place(least), 100 * least.share,
                                   first_step_, advice(router_)));
  }
}

std::string RoutingWatch::place(const Worst& worst) const {
  return fmt::format("expert {} of layer {}", worst.expert, blocks_[static_cast<std::size_t>(worst.layer)]);
}

}  // namespace switchyard
