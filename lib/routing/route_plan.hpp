// Which token goes to which expert, in which slot, with which weight, for one microbatch and layer. Built once by a
// router; dispatch, combine and both backward passes follow it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

// An assignment is a token's choice of an expert: tokens * top_k of them, of which some may not have been made (expert
// choice) and some are dropped (over an expert's capacity). Those that are left have slots, sorted by expert.
struct RoutePlan {
  Index tokens = 0, top_k = 1, num_experts = 0;
  std::int32_t* experts = nullptr;              // (tokens * top_k) device; -1: not made
  float* weights = nullptr;                     // (tokens * top_k) device; null: all 1
  const float* probabilities = nullptr;         // (tokens, num_experts) device; null: the router has none
  std::int32_t* assignment_of_slot = nullptr;   // (slots) device
  std::int32_t* slot_of_assignment = nullptr;   // (tokens * top_k) device; -1: no slot
  std::vector<std::int32_t> chosen;             // (num_experts) host: tokens that each expert was chosen for
  std::vector<std::int32_t> tokens_per_expert;  // (num_experts) host: of these, the ones with a slot
  // Every rank of the expert group has the same tokens_per_expert, so counts need no exchange.
  bool same_counts_everywhere = false;
  // Every rank of the expert group sends tokens to its own experts alone, so nothing needs an exchange.
  bool all_stay_home = false;
};

}  // namespace switchyard
