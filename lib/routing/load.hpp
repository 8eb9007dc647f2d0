// What a batch's routing is judged by: where its tokens went, and what the auxiliary losses said.
#pragma once

#include <vector>

#include "core/types.hpp"

namespace switchyard {

// Of one microbatch or batch, each weighted as it is added to the loss, summed over layers.
struct AuxiliaryLosses {
  double balance = 0, z = 0, importance = 0, load = 0, consistency = 0;

  double total() const { return balance + z + importance + load + consistency; }
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

}  // namespace switchyard
