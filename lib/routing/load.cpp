#include "routing/load.hpp"

#include <algorithm>
#include <cmath>

namespace switchyard {

LoadBalance load_balance(std::span<const float> tokens_per_expert) {
  double total = 0, most = 0;
  for (const double tokens : tokens_per_expert) {
    total += tokens;
    most = std::max(most, tokens);
  }
  LoadBalance balance;
  if (total == 0) return balance;
  const double experts = static_cast<double>(tokens_per_expert.size()), mean = total / experts;
  double squares = 0, num_dead = 0;
  for (const double tokens : tokens_per_expert) {
    squares += (tokens - mean) * (tokens - mean);
    if (tokens > 0)
      balance.entropy -= tokens / total * std::log(tokens / total);
    else
      ++num_dead;
  }
  balance.variation = std::sqrt(squares / experts) / mean;
  balance.max_over_mean = most / mean;
  balance.dead = num_dead / experts;
  return balance;
}

}  // namespace switchyard
