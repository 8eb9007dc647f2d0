#include <cmath>

#include "core/error.hpp"
#include "kernels/cpu/choose_largest.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr float kTiny = 1e-20f;  // keeps a sum of sigmoids from being 0

// A NaN may get lost in it.
float max_of_row(const float* z, Index size) {
  float max = z[0];
  Index e = 0;
  if (size >= kLanes) {
    Vector maxima = load(z);
    for (e = kLanes; e + kLanes <= size; e += kLanes) maxima = larger(load(z + e), maxima);
    max = max_of(maxima)[0];
  }
  for (; e < size; ++e) max = z[e] > max ? z[e] : max;
  return max;
}

// z, and in scores what exp is to be taken of: z less its maximum, which log_sum_exp keeps for later.
void write_z(const Gate& args, Index token, float* z) {
  const Index num_experts = args.num_experts;
  const float* logits = args.logits + token * num_experts;
  if (args.bias)
    for (Index e = 0; e < num_experts; ++e) z[e] = logits[e] + args.bias[e];
  else
    for (Index e = 0; e < num_experts; ++e) z[e] = logits[e];
  if (args.kind == Scores::kSigmoid) return;
  const float max = max_of_row(z, num_experts);
  float* scores = args.scores + token * num_experts;
  for (Index e = 0; e < num_experts; ++e) scores[e] = z[e] - max;
  if (args.log_sum_exp) args.log_sum_exp[token] = max;
}

void choose(const Gate& args, const float* z, const float* scores, std::int32_t* chosen) {
  const float* selection_bias = args.selection_bias;
  if (selection_bias)
    choose_largest(
        args.first_expert, args.end_expert, args.top_k, [=](Index e) { return scores[e] + selection_bias[e]; }, chosen);
  else
    choose_largest(
        args.first_expert, args.end_expert, args.top_k, [=](Index e) { return z[e]; }, chosen);
}

// The renormalised weights under softmax come from z: the chosen scores may all be 0.
void write_weights(const Gate& args, const float* z, const float* scores, const std::int32_t* chosen, float* weights) {
  const Index top_k = args.top_k;
  for (Index j = 0; j < top_k; ++j) weights[j] = scores[chosen[j]];
  if (!args.renormalise) return;
  float sum = 0;
  if (args.kind == Scores::kSoftmax) {
    float max = z[chosen[0]];
    for (Index j = 1; j < top_k; ++j) max = z[chosen[j]] > max ? z[chosen[j]] : max;
    for (Index j = 0; j < top_k; ++j) sum += weights[j] = vector_exp(z[chosen[j]] - max);
  } else {
    for (Index j = 0; j < top_k; ++j) sum += weights[j];
    sum += kTiny;
  }
  for (Index j = 0; j < top_k; ++j) weights[j] /= sum;
}

// From the exponentials or sigmoids in scores to everything else of a token.
void finish_token(const Gate& args, Index token, const float* z) {
  const Index num_experts = args.num_experts;
  float* scores = args.scores + token * num_experts;
  const float sum = sum_of_terms(0, num_experts, [=](Index e, auto at) { return at(scores + e); });
  if (args.kind == Scores::kSoftmax) {
    for (Index e = 0; e < num_experts; ++e) scores[e] /= sum;
    if (args.log_sum_exp) args.log_sum_exp[token] += vector_log(sum);
  } else {
    float* probabilities = args.probabilities + token * num_experts;
    for (Index e = 0; e < num_experts; ++e) probabilities[e] = scores[e] / (sum + kTiny);
  }
  std::int32_t* chosen = args.experts + token * args.top_k;
  float* weights = args.weights + token * args.top_k;
  choose(args, z, scores, chosen);
  write_weights(args, z, scores, chosen, weights);
  if (!std::isnan(sum)) return;
  for (Index j = 0; j < args.top_k; ++j) weights[j] = sum;
  if (args.log_sum_exp && args.kind == Scores::kSoftmax) args.log_sum_exp[token] = sum;
}

}  // namespace

// exp is taken over the tokens of a block at once: a token's few experts would not fill a vector.
void gate(const Context& context, const Gate& args) {
  const Index num_experts = args.num_experts;
  if (args.first_expert < 0 || args.end_expert > num_experts || args.end_expert - args.first_expert < args.top_k)
    fail("gate: {} experts cannot be chosen among experts {} to {} of {}: a router is wrong.", args.top_k,
         args.first_expert, args.end_expert - 1, num_experts);
  for_row_blocks(context, args.tokens, [&](Index, Index first_token, Index end_token) {
    thread_local Scratch<float> scratch;
    const Index size = (end_token - first_token) * num_experts;
    float* z = scratch.get(size);
    float* scores = args.scores + first_token * num_experts;
    for (Index token = first_token; token < end_token; ++token)
      write_z(args, token, z + (token - first_token) * num_experts);
    if (args.kind == Scores::kSoftmax) {
#pragma omp simd
      for (Index i = 0; i < size; ++i) scores[i] = vector_exp(scores[i]);
    } else {
#pragma omp simd
      for (Index i = 0; i < size; ++i) scores[i] = sigmoid(z[i]);
    }
    for (Index token = first_token; token < end_token; ++token)
      finish_token(args, token, z + (token - first_token) * num_experts);
  });
}

// With s the scores, p the probabilities, q[e] = d_probability_of_expert[e], w the weights, g their gradients, and r 1
// for every expert under softmax, 1 - s under sigmoid:
//   d_logits[e] = r[e] (p[e] (q[e] - sum of p q) + sum over choices a of e of w[a] (g[a] - G)),
// G = sum of w g where the weights are renormalised. Under softmax there is + p[e] z_scale log_sum_exp, and weights
// that are not renormalised share the normalisation of p: - p[e] sum of w g.
void gate_backward(const Context& context, const GateBackward& args) {
  const Index num_experts = args.num_experts, top_k = args.top_k;
  const bool softmax = args.kind == Scores::kSoftmax;
  const float* q = args.d_probability_of_expert;
  for_rows(context, args.tokens, [&](Index token) {
    const float* scores = args.scores + token * num_experts;
    const float* p = softmax ? scores : args.probabilities + token * num_experts;
    const std::int32_t* experts = args.experts + token * top_k;
    const float* weights = args.weights + token * top_k;
    const float* d_weights = args.d_weights + token * top_k;
    float* d_logits = args.d_logits + token * num_experts;
    const auto gradient_of_weight = [&](Index j) {
      return d_weights[j] + (args.d_weight_of_expert ? args.d_weight_of_expert[experts[j]] : 0.0f);
    };

    float sum_of_wg = 0;
    for (Index j = 0; j < top_k; ++j)
      if (experts[j] >= 0) sum_of_wg += weights[j] * gradient_of_weight(j);
    float shift = q ? -sum_of_terms(0, num_experts, [=](Index e, auto at) { return at(p + e) * at(q + e); }) : 0.0f;
    if (softmax && !args.renormalise) shift -= sum_of_wg;
    if (softmax && args.z_scale != 0) shift += args.z_scale * args.log_sum_exp[token];
    for (Index e = 0; e < num_experts; ++e) d_logits[e] = p[e] * ((q ? q[e] : 0.0f) + shift);
    if (!softmax)
      for (Index e = 0; e < num_experts; ++e) d_logits[e] *= 1.0f - scores[e];

    const float mean_gradient = args.renormalise ? sum_of_wg : 0.0f;
    for (Index j = 0; j < top_k; ++j) {
      const Index e = experts[j];
      if (e < 0) continue;
      const float d = weights[j] * (gradient_of_weight(j) - mean_gradient);
      d_logits[e] += softmax ? d : d * (1.0f - scores[e]);
    }
  });
}

}  // namespace switchyard::kernels::cpu
