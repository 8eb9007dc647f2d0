#include <algorithm>

#include "core/error.hpp"
#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

void top1_gate(const Context& context, const Top1Gate& args) {
  const Index num_experts = args.num_experts;
  for_rows(context, args.tokens, [&](Index token) {
    const float* logits = args.logits + token * num_experts;
    float* probabilities = args.probabilities + token * num_experts;
    for (Index e = 0; e < num_experts; ++e) probabilities[e] = logits[e] + args.bias[e];
    Index best = 0;
    for (Index e = 1; e < num_experts; ++e)
      if (probabilities[e] > probabilities[best]) best = e;
    const float max = probabilities[best];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index e = 0; e < num_experts; ++e) {
      probabilities[e] = vector_exp(probabilities[e] - max);
      sum += probabilities[e];
    }
    for (Index e = 0; e < num_experts; ++e) probabilities[e] /= sum;
    args.experts[token] = static_cast<std::int32_t>(best);
    args.weights[token] = probabilities[best];
  });
}

// d_logits[e] = p[e] (d_p[e] - sum over i of p[i] d_p[i]), d_p[e] = balance_scale n[e] + (e chosen ? d_weight : 0).
void top1_gate_backward(const Context& context, const Top1GateBackward& args) {
  const Index num_experts = args.num_experts;
  for_rows(context, args.tokens, [&](Index token) {
    const float* p = args.probabilities + token * num_experts;
    float* d_logits = args.d_logits + token * num_experts;
    float dot = 0;
    for (Index e = 0; e < num_experts; ++e) {
      const float d_p = args.balance_scale * static_cast<float>(args.tokens_per_expert[e]) +
                        (e == args.experts[token] ? args.d_weights[token] : 0.0f);
      dot += p[e] * d_p;
      d_logits[e] = d_p;
    }
    for (Index e = 0; e < num_experts; ++e) d_logits[e] = p[e] * (d_logits[e] - dot);
  });
}

void sort_by_expert(const Context&, const SortByExpert& args) {
  thread_local Scratch<std::int32_t> scratch;
  std::int32_t* next_slot = scratch.get(args.num_experts);
  std::fill_n(args.tokens_per_expert, args.num_experts, 0);
  for (Index a = 0; a < args.assignments; ++a) {
    const Index expert = args.experts[a];
    if (expert < 0 || expert >= args.num_experts)
      fail("sort_by_expert: assignment {} names expert {}, but there are experts 0 to {} only: a router is wrong.", a,
           expert, args.num_experts - 1);
    ++args.tokens_per_expert[expert];
  }
  std::int32_t slot = 0;
  for (Index expert = 0; expert < args.num_experts; ++expert) {
    next_slot[expert] = slot;
    slot += args.tokens_per_expert[expert];
  }
  for (Index a = 0; a < args.assignments; ++a) {
    const std::int32_t own = next_slot[args.experts[a]]++;
    args.assignment_of_slot[own] = static_cast<std::int32_t>(a);
    args.slot_of_assignment[a] = own;
  }
}

void dispatch(const Context& context, const Dispatch& args) {
  for_rows(context, args.num_slots, [&](Index slot) {
    const Index token = args.assignment_of_slot[slot] / args.top_k;
    copy(args.slots + slot * args.cols, args.rows + token * args.cols, args.cols * Index{sizeof(float)});
    args.slot_ids[slot] = args.first_id + static_cast<std::int32_t>(token);
  });
}

void dispatch_backward(const Context& context, const DispatchBackward& args) {
  for_rows(context, args.tokens, [&](Index token) {
    float* d_row = args.d_rows + token * args.cols;
    std::fill_n(d_row, args.cols, 0.0f);
    for (Index k = 0; k < args.top_k; ++k) {
      const Index slot = args.slot_of_assignment[token * args.top_k + k];
      if (slot < 0) continue;
      const float* d_slot = args.d_slots + slot * args.cols;
#pragma omp simd
      for (Index c = 0; c < args.cols; ++c) d_row[c] += d_slot[c];
    }
  });
}

void combine(const Context& context, const Combine& args) {
  for_rows(context, args.tokens, [&](Index token) {
    const float* residual = args.residual + token * args.cols;
    float* y = args.y + token * args.cols;
    for_dropout_chunks(args.dropout, token, args.cols, [&](Index first_col, Index end_col, const float* scales) {
      alignas(64) float sums[kDropoutChunk] = {};
      for (Index k = 0; k < args.top_k; ++k) {
        const Index assignment = token * args.top_k + k, slot = args.slot_of_assignment[assignment];
        if (slot < 0) continue;
        const float weight = args.weights ? args.weights[assignment] : 1.0f;
        const float* values = args.slots + slot * args.cols;
#pragma omp simd
        for (Index c = first_col; c < end_col; ++c) sums[c - first_col] += weight * values[c];
      }
#pragma omp simd
      for (Index c = first_col; c < end_col; ++c) y[c] = residual[c] + sums[c - first_col] * scales[c - first_col];
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
        float* d_slot = args.d_slots + slot * args.cols;
#pragma omp simd
        for (Index c = first_col; c < end_col; ++c) d_slot[c] = weight * (d_y[c] * scales[c - first_col]);
        if (!args.d_weights) continue;
        const float* values = args.slots + slot * args.cols;
        args.d_weights[assignment] += sum_of_terms(first_col, end_col, [=](Index c, auto at) {
          return at(d_y + c) * at(scales + c - first_col) * at(values + c);
        });
      }
    });
  });
}

}  // namespace switchyard::kernels::cpu
