// Which token goes to which expert, in which slot, with which weight, for one microbatch and layer. Built once by a
// router; dispatch, combine and both backward passes follow it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

struct RoutePlan {
  Index tokens = 0, top_k = 1, num_experts = 0;
  std::int32_t* experts = nullptr;              // (tokens * top_k) device
  float* weights = nullptr;                     // (tokens * top_k) device; null: all 1
  std::int32_t* device_counts = nullptr;        // (num_experts) device
  std::int32_t* assignment_of_slot = nullptr;   // (tokens * top_k) device
  std::int32_t* slot_of_assignment = nullptr;   // (tokens * top_k) device
  std::vector<std::int32_t> tokens_per_expert;  // (num_experts) host
  // Every rank of the expert group has the same tokens_per_expert, so counts need no exchange.
  bool same_counts_everywhere = false;
};

}  // namespace switchyard
