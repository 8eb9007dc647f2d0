// A group of lanes for each token. What a row needs again is computed again, from the logits, until the scores, which
// may lie there, are written last.
#include "kernels/cuda/lane_groups.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/scalar_math.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr float kTiny = 1e-20f;  // keeps a sum of sigmoids from being 0

// A token's z and scores, with the row's maximum (softmax) and the sum of exponentials or sigmoids.
struct GateRow {
  const Gate& args;
  const float* logits;
  float max, sum;

  __device__ bool softmax() const { return args.kind == Scores::kSoftmax; }
  __device__ float z(int e) const { return args.bias ? logits[e] + args.bias[e] : logits[e]; }
  __device__ float term(int e) const { return softmax() ? exp_or_zero(z(e) - max) : sigmoid(z(e)); }
  __device__ float score(int e) const { return softmax() ? term(e) / sum : term(e); }
};

template <int kGroup>
__device__ GateRow gate_row(const Gate& args, Index token, int lane_of_group) {
  const auto num_experts = static_cast<int>(args.num_experts);
  GateRow row{args, args.logits + token * args.num_experts, -INFINITY, 0};
  if (row.softmax()) {
    for (int e = lane_of_group; e < num_experts; e += kGroup) row.max = row.z(e) > row.max ? row.z(e) : row.max;
    row.max = group_max<kGroup>(row.max);
  }
  float sum = 0;
  for (int e = lane_of_group; e < num_experts; e += kGroup) sum += row.term(e);
  row.sum = group_sum<kGroup>(sum);
  return row;
}

// chosen[0 .. top_k)
template <int kGroup>
__device__ void choose(const GateRow& row, int lane_of_group, bool real, std::int32_t* chosen) {
  const Gate& args = row.args;
  const auto first = static_cast<int>(args.first_expert), end = static_cast<int>(args.end_expert);
  Rank rank = kAboveAll;
  for (Index j = 0; j < args.top_k; ++j) {
    rank = next_largest<kGroup>(first, end, lane_of_group, rank, [&](int e) {
      return args.selection_bias ? row.score(e) + args.selection_bias[e] : row.z(e);
    });
    if (real && lane_of_group == 0) chosen[j] = index_of(rank);
  }
}

// A lane of the group has every kGroup-th choice. The renormalised weights under softmax come from z: the chosen scores
// may all be 0.
template <int kGroup>
__device__ void write_weights(const GateRow& row, int lane_of_group, bool real, const std::int32_t* chosen,
                              float* weights) {
  const auto num_choices = real ? static_cast<int>(row.args.top_k) : 0;
  const bool renormalise = row.args.renormalise;
  float max = -INFINITY, sum = renormalise ? 0.0f : 1.0f;
  if (renormalise && row.softmax()) {
    for (int j = lane_of_group; j < num_choices; j += kGroup) {
      const float z = row.z(chosen[j]);
      max = z > max ? z : max;
    }
    max = group_max<kGroup>(max);
  }
  const auto weight = [&](int j) {
    return renormalise && row.softmax() ? exp_or_zero(row.z(chosen[j]) - max) : row.score(chosen[j]);
  };
  if (renormalise) {
    for (int j = lane_of_group; j < num_choices; j += kGroup) sum += weight(j);
    sum = group_sum<kGroup>(sum) + (row.softmax() ? 0.0f : kTiny);
  }
  for (int j = lane_of_group; j < num_choices; j += kGroup)
    weights[j] = row.sum == row.sum ? weight(j) / sum : row.sum;  // NaN anywhere in the row shows
}

template <int kGroup>
__global__ void gate_kernel(Gate args) {
  for_grouped_rows<kGroup>(args.tokens, [&](Index token, int lane_of_group, bool real) {
    const GateRow row = gate_row<kGroup>(args, token, lane_of_group);
    std::int32_t* chosen = args.experts + token * args.top_k;
    choose<kGroup>(row, lane_of_group, real, chosen);
    __syncwarp();
    write_weights<kGroup>(row, lane_of_group, real, chosen, args.weights + token * args.top_k);
    __syncwarp();  // the row's logits have been read, but each lane's own
    if (!real) return;
    for (int e = lane_of_group; e < args.num_experts; e += kGroup) {
      const float score = row.score(e);
      args.scores[token * args.num_experts + e] = score;
      if (!row.softmax()) args.probabilities[token * args.num_experts + e] = score / (row.sum + kTiny);
    }
    if (lane_of_group == 0 && args.log_sum_exp && row.softmax()) args.log_sum_exp[token] = row.max + logf(row.sum);
  });
}

// The equations stand in kernels/cpu/gate.cpp. A lane has every kGroup-th choice, then every kGroup-th expert, for
// which it looks through all choices, in order.
template <int kGroup>
__global__ void gate_backward_kernel(GateBackward args) {
  for_grouped_rows<kGroup>(args.tokens, [&](Index token, int lane_of_group, bool real) {
    const auto num_experts = static_cast<int>(args.num_experts), top_k = static_cast<int>(args.top_k);
    const bool softmax = args.kind == Scores::kSoftmax;
    const float* q = args.d_probability_of_expert;
    const float* scores = args.scores + token * num_experts;
    const float* p = softmax ? scores : args.probabilities + token * num_experts;
    const std::int32_t* experts = args.experts + token * top_k;
    const float* weights = args.weights + token * top_k;
    const auto gradient_of_weight = [&](int j) {
      return args.d_weights[token * top_k + j] + (args.d_weight_of_expert ? args.d_weight_of_expert[experts[j]] : 0.0f);
    };

    float sum_of_wg = 0, sum_of_pq = 0;
    for (int j = lane_of_group; j < top_k; j += kGroup)
      if (experts[j] >= 0) sum_of_wg += weights[j] * gradient_of_weight(j);
    sum_of_wg = group_sum<kGroup>(sum_of_wg);
    if (q)
      for (int e = lane_of_group; e < num_experts; e += kGroup) sum_of_pq += p[e] * q[e];
    float shift = -group_sum<kGroup>(sum_of_pq);
    if (softmax && !args.renormalise) shift -= sum_of_wg;
    if (softmax && args.z_scale != 0) shift += args.z_scale * args.log_sum_exp[token];
    if (!real) return;
    const float mean_gradient = args.renormalise ? sum_of_wg : 0.0f;
    for (int e = lane_of_group; e < num_experts; e += kGroup) {
      float d = p[e] * ((q ? q[e] : 0.0f) + shift);
      for (int j = 0; j < top_k; ++j)
        if (experts[j] == e) d += weights[j] * (gradient_of_weight(j) - mean_gradient);
      args.d_logits[token * num_experts + e] = softmax ? d : d * (1.0f - scores[e]);
    }
  });
}

}  // namespace

void gate(const Context& context, const Gate& args) {
  if (args.first_expert < 0 || args.end_expert > args.num_experts || args.end_expert - args.first_expert < args.top_k)
    fail_operation("gate: " + std::to_string(args.top_k) + " experts cannot be chosen among experts " +
                   std::to_string(args.first_expert) + " to " + std::to_string(args.end_expert - 1) + " of " +
                   std::to_string(args.num_experts) + ": a router is wrong.");
  with_group_for(args.num_experts, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.tokens), gate_kernel<kGroup>, args);
  });
}

void gate_backward(const Context& context, const GateBackward& args) {
  with_group_for(args.num_experts, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.tokens), gate_backward_kernel<kGroup>, args);
  });
}

}  // namespace switchyard::kernels::cuda
