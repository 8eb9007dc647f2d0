// What routers and the exchange need. A token's k-th choice of expert is the assignment token * top_k + k; assignments
// sorted by expert, in order within an expert, fill the slots 0, 1, 2, ...
#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

// A stable counting sort of assignments by expert: the same slots whatever the number of threads. An expert keeps the
// first `capacity` of its assignments, and these have slots in their order; the others are dropped and have none.
// Which ones are first: with top_k = 1 those of the first tokens; above 1 all tokens' first choices before any second
// one, and so on, the choices of one rank by token.
struct SortByExpert {
  Index assignments = 0, num_experts = 0;
  Index capacity = 0;                          // 0: no limit
  Index top_k = 1;                             // divides assignments; read where there is a capacity
  const std::int32_t* experts = nullptr;       // (assignments), each in [0, num_experts), or -1: not made
  std::int32_t* tokens_per_expert = nullptr;   // (num_experts) kept
  std::int32_t* dropped_per_expert = nullptr;  // (num_experts); null: not wanted
  std::int32_t* assignment_of_slot = nullptr;  // (assignments), of which as many are written as were kept
  std::int32_t* slot_of_assignment = nullptr;  // (assignments); -1: dropped, or not made
};
void sort_by_expert(const Context& context, const SortByExpert& args);

// slots[s] = rows[assignment_of_slot[s] / top_k];  slot_ids[s] = first_id + assignment_of_slot[s] / top_k
// Without columns slot_ids alone, where LayerNorm has written the rows to their slots; its backward pass is also the
// way back from them (layernorm.hpp).
struct Dispatch {
  Index num_slots = 0, cols = 0, top_k = 1;
  Operand rows{};                                    // (tokens, cols)
  const std::int32_t* assignment_of_slot = nullptr;  // (num_slots)
  std::uint32_t first_id = 0;
  NewOperand slots{};                // (num_slots, cols)
  std::int32_t* slot_ids = nullptr;  // (num_slots): the token's own identity, which keys dropout; its 32 bits
};
void dispatch(const Context& context, const Dispatch& args);

// y[t] = residual[t] + dropout(sum over k, in order, of weights[t, k] slots[slot_of_assignment[t * top_k + k]])
struct Combine {
  Index tokens = 0, cols = 0, top_k = 1;
  Operand slots{};                                   // (num_slots, cols)
  const std::int32_t* slot_of_assignment = nullptr;  // (tokens * top_k); -1: dropped, adds nothing
  const float* weights = nullptr;                    // (tokens * top_k); null: all 1
  const float* residual = nullptr;                   // (tokens, cols); null: zeros
  float* y = nullptr;                                // (tokens, cols); may be residual
  Dropout dropout{};
};
void combine(const Context& context, const Combine& args);

// With g = dropout(d_y): d_slots[slot] = weight g[t]; d_weights[t, k] = g[t] . slots[slot] (0 where dropped).
struct CombineBackward {
  Index tokens = 0, cols = 0, top_k = 1;
  const float* d_y = nullptr;                        // (tokens, cols)
  Operand slots{};                                   // (num_slots, cols); needed for d_weights only
  const std::int32_t* slot_of_assignment = nullptr;  // (tokens * top_k)
  const float* weights = nullptr;                    // (tokens * top_k); null: all 1
  NewOperand d_slots{};                              // (num_slots, cols); every used slot is overwritten
  float* d_weights = nullptr;                        // (tokens * top_k); null: not wanted
  Dropout dropout{};
};
void combine_backward(const Context& context, const CombineBackward& args);

}  // namespace switchyard::kernels
