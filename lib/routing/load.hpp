// What a batch's routing is judged by: where its tokens went, and what the auxiliary losses said.
#pragma once

#include <span>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

// Of one microbatch or batch, each weighted as it is added to the loss, summed over layers.
struct AuxiliaryLosses {
  double balance = 0, z = 0, importance = 0, load = 0, consistency = 0, hardening = 0;

  double total() const { return balance + z + importance + load + consistency + hardening; }
  bool operator==(const AuxiliaryLosses&) const = default;
};

// Of the blocks that have a mixture, here called layers. A token counts once for each expert that was chosen for it,
// and in each pass where training makes two.
struct RoutingLoad {
  Index layers = 0, experts = 0;    // no layers: no mixture
  std::vector<float> tokens;        // (layers, experts), those over capacity included
  std::vector<float> dropped;       // (layers, experts) over capacity
  std::vector<float> weight;        // (layers, experts) mean weight of its tokens; NaN where it has none
  std::vector<float> gate_entropy;  // (layers) nats, mean over tokens; NaN where the router has no probabilities
};

// How even a layer's load is, from its tokens of each expert, n_1 ... n_E with mean m:
//   variation = sqrt(sum_e (n_e - m)^2 / E) / m,  max_over_mean = max_e n_e / m,
//   entropy = -sum_e p_e ln p_e with p_e = n_e / sum n (nats; ln E where even),  dead = share of experts with n_e = 0.
// All 0 where there are no tokens at all.
struct LoadBalance {
  double variation = 0, max_over_mean = 0, entropy = 0, dead = 0;
};
LoadBalance load_balance(std::span<const float> tokens_per_expert);

// Of the blocks that have a tree of leaves, here called layers (kernels/api/tree.hpp).
struct TreeLoad {
  Index layers = 0, leaves = 0;
  std::vector<float> entropy;  // (layers, leaves - 1) of each node's choice, nats, mean over tokens
  std::vector<float> share;    // (layers, leaves) that each leaf has in a token's output, mean over tokens
};

// Those of one layer: (experts).
inline std::span<const float> tokens_of_layer(const RoutingLoad& load, Index layer) {
  return std::span(load.tokens)
      .subspan(static_cast<std::size_t>(layer * load.experts), static_cast<std::size_t>(load.experts));
}

}  // namespace switchyard
