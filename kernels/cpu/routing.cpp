#include <algorithm>

#include "core/error.hpp"
#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// slot_of_assignment: 0 for what its expert has room for, first choices before second ones; else -1.
// left: (num_experts), overwritten.
void give_room(const SortByExpert& args, std::int32_t* left) {
  std::fill_n(left, args.num_experts, static_cast<std::int32_t>(std::min(args.capacity, args.assignments)));
  for (Index choice = 0; choice < args.top_k; ++choice)
    for (Index a = choice; a < args.assignments; a += args.top_k) {
      const std::int32_t expert = args.experts[a];
      const bool kept = expert >= 0 && left[expert] > 0;
      args.slot_of_assignment[a] = kept ? 0 : -1;
      if (kept) --left[expert];
    }
}

}  // namespace

void sort_by_expert(const Context&, const SortByExpert& args) {
  thread_local Scratch<std::int32_t> scratch;
  const Index num_experts = args.num_experts;
  std::int32_t* next_slot = scratch.get(num_experts);
  std::fill_n(args.tokens_per_expert, num_experts, 0);
  for (Index a = 0; a < args.assignments; ++a) {
    const Index expert = args.experts[a];
    if (expert < -1 || expert >= num_experts)
      fail("sort_by_expert: assignment {} names expert {}, but there are experts 0 to {} only: a router is wrong.", a,
           expert, num_experts - 1);
    if (expert >= 0) ++args.tokens_per_expert[expert];
  }
  if (args.capacity > 0) give_room(args, next_slot);
  std::int32_t slot = 0;
  for (Index expert = 0; expert < num_experts; ++expert) {
    const std::int32_t wanted = args.tokens_per_expert[expert];
    const auto kept = args.capacity == 0 ? wanted : static_cast<std::int32_t>(std::min<Index>(wanted, args.capacity));
    args.tokens_per_expert[expert] = kept;
    if (args.dropped_per_expert) args.dropped_per_expert[expert] = wanted - kept;
    next_slot[expert] = slot;
    slot += kept;
  }
  for (Index a = 0; a < args.assignments; ++a) {
    const std::int32_t expert = args.experts[a];
    const bool kept = args.capacity > 0 ? args.slot_of_assignment[a] == 0 : expert >= 0;
    args.slot_of_assignment[a] = kept ? next_slot[expert] : -1;
    if (kept) args.assignment_of_slot[next_slot[expert]++] = static_cast<std::int32_t>(a);
  }
}

// The entropy of a block of tokens is one sum; blocks follow from the shape, and add up in order.
void route_statistics(const Context& context, const RouteStatistics& args) {
  std::fill_n(args.weight_sums, args.num_experts, 0.0f);
  for (Index a = 0; a < args.tokens * args.top_k; ++a)
    if (args.experts[a] >= 0) args.weight_sums[args.experts[a]] += args.weights ? args.weights[a] : 1.0f;

  float sums[kMaxRowBlocks] = {};
  if (args.probabilities)
    for_row_blocks(context, args.tokens, [&](Index block_idx, Index first_token, Index end_token) {
      const float* p = args.probabilities;
      sums[block_idx] = sum_of_terms(first_token * args.num_experts, end_token * args.num_experts,
                                     [=](Index i, auto at) { return at(p + i) * vector_log(at(p + i)); });
    });
  float sum = 0;
  for (const float block_sum : sums) sum -= block_sum;
  *args.entropy_sum = sum;
}

void dispatch(const Context& context, const Dispatch& args) {
  for_rows(context, args.num_slots, [&](Index slot) {
    const Index token = args.assignment_of_slot[slot] / args.top_k;
    copy(args.slots.values + slot * args.cols, args.rows.values + token * args.cols, args.cols * Index{sizeof(float)});
    args.slot_ids[slot] = static_cast<std::int32_t>(args.first_id + static_cast<std::uint32_t>(token));
  });
}

void combine(const Context& context, const Combine& args) {
  for_rows(context, args.tokens, [&](Index token) {
    const float* residual = args.residual ? args.residual + token * args.cols : nullptr;
    float* y = args.y + token * args.cols;
    for_dropout_chunks(args.dropout, token, args.cols, [&](Index first_col, Index end_col, const float* scales) {
      alignas(64) float sums[kDropoutChunk] = {};
      for (Index k = 0; k < args.top_k; ++k) {
        const Index assignment = token * args.top_k + k, slot = args.slot_of_assignment[assignment];
        if (slot < 0) continue;
        const float weight = args.weights ? args.weights[assignment] : 1.0f;
        const float* values = args.slots.values + slot * args.cols;
#pragma omp simd
        for (Index c = first_col; c < end_col; ++c) sums[c - first_col] += weight * values[c];
      }
#pragma omp simd
      for (Index c = first_col; c < end_col; ++c)
        y[c] = (residual ? residual[c] : 0) + sums[c - first_col] * scales[c - first_col];
    });
  });
}

void combine_backward(const Context& context, const CombineBackward& args) {
  for_rows(context, args.tokens, [&](Index token) {
    const float* d_y = args.d_y + token * args.cols;
    if (args.d_weights) std::fill_n(args.d_weights + token * args.top_k, args.top_k, 0.0f);
    for_dropout_chunks(args.dropout, token, args.cols, [&](Index first_col, Index end_col, const float* scales) {
      for (Index k = 0; k < args.top_k; ++k) {
        const Index assignment = token * args.top_k + k, slot = args.slot_of_assignment[assignment];
        if (slot < 0) continue;
        const float weight = args.weights ? args.weights[assignment] : 1.0f;
        float* d_slot = args.d_slots.values + slot * args.cols;
#pragma omp simd
        for (Index c = first_col; c < end_col; ++c) d_slot[c] = weight * (d_y[c] * scales[c - first_col]);
        if (!args.d_weights) continue;
        const float* values = args.slots.values + slot * args.cols;
        args.d_weights[assignment] += sum_of_terms(first_col, end_col, [=](Index c, auto at) {
          return at(d_y + c) * at(scales + c - first_col) * at(values + c);
        });
      }
    });
  });
}

}  // namespace switchyard::kernels::cpu
