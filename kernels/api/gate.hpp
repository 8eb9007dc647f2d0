// What learned routers compute for the tokens of a microbatch. In all of these an assignment a = token * top_k + j is
// the token's j-th choice; experts[a] is -1 where the choice was not made.
#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "kernels/api/dropout.hpp"

namespace switchyard::kernels {

// What a gate reads instead of x, in training: y = x (1 + jitter (2 u - 1)) dropout, u uniform over [0, 1), each factor
// left out where its jitter or probability is 0; and the way back, d_x of d_y. u takes 16 bits of Philox, (bits + 0.5)
// / 65536, laid out as Dropout's.
struct PerturbInput {
  Index rows = 0, cols = 0;
  const float* x = nullptr;  // (rows, cols)
  float jitter = 0;          // in [0, 1)
  RandomKey jitter_key{};
  std::uint32_t first_row = 0;  // the Philox row of array row 0, for jitter
  Dropout dropout{};
  float* y = nullptr;  // (rows, cols); may be x
};
void perturb_input(const Context& context, const PerturbInput& args);

enum class Scores { kSoftmax, kSigmoid };

// z = logits[t] + bias. scores = softmax(z) or sigmoid(z), probabilities = scores / their sum, over all experts.
// The choices are the top_k of [first_expert, end_expert) with the largest z, or, with a selection bias, with the
// largest score + selection_bias; largest first, the lower index where equal. A row with NaN takes experts that exist,
// and its weights are NaN.
// weights = the scores of the chosen; with renormalise divided by their sum (softmax: a softmax over the chosen z, so
// that one choice alone has the weight 1 exactly). A sum of sigmoids, here and above, is that and 1e-20.
struct Gate {
  Index tokens = 0, num_experts = 0, top_k = 1;
  Index first_expert = 0, end_expert = 0;  // at least top_k of them
  Scores kind = Scores::kSoftmax;
  bool renormalise = false;
  const float* logits = nullptr;          // (tokens, num_experts)
  const float* bias = nullptr;            // (num_experts); null: none
  const float* selection_bias = nullptr;  // (num_experts); null: none
  float* scores = nullptr;                // (tokens, num_experts); may be logits
  float* probabilities = nullptr;         // (tokens, num_experts); softmax: not written, the scores are these
  std::int32_t* experts = nullptr;        // (tokens * top_k)
  float* weights = nullptr;               // (tokens * top_k)
  float* log_sum_exp = nullptr;           // (tokens) of z; null: not wanted; sigmoid: not written
};
void gate(const Context& context, const Gate& args);

// The gradient of  sum over assignments of d_weights[a] weights[a] + d_weight_of_expert[e] weights[a]
//                + sum over t, e of d_probability_of_expert[e] probabilities[t, e]
//                + z_scale / 2 sum over t of log_sum_exp[t]^2        (softmax only)
// with respect to the logits. Choices that were not made (-1) give nothing.
struct GateBackward {
  Index tokens = 0, num_experts = 0, top_k = 1;
  Scores kind = Scores::kSoftmax;
  bool renormalise = false;
  const float* scores = nullptr;                   // (tokens, num_experts), from gate()
  const float* probabilities = nullptr;            // (tokens, num_experts); sigmoid only
  const std::int32_t* experts = nullptr;           // (tokens * top_k)
  const float* weights = nullptr;                  // (tokens * top_k)
  const float* d_weights = nullptr;                // (tokens * top_k)
  const float* d_weight_of_expert = nullptr;       // (num_experts); null: 0
  const float* d_probability_of_expert = nullptr;  // (num_experts); null: 0
  const float* log_sum_exp = nullptr;              // (tokens); needed where z_scale is not 0
  float z_scale = 0;
  float* d_logits = nullptr;  // (tokens, num_experts), overwritten
};
void gate_backward(const Context& context, const GateBackward& args);

// Noisy top-k (Shazeer et al., 1701.06538): noisy = clean + noise (softplus(raw) + floor), noise standard normal by
// Box-Muller on 32-bit words of Philox: expert e takes words 2 (e % 2) and 2 (e % 2) + 1 of block e / 2 of row
// first_row + t, as sqrt(-2 ln(1 - u1)) cos(2 pi u2), u = to_unit_float(word).
struct NoisyLogits {
  Index tokens = 0, num_experts = 0;
  float floor = 0;               // at least 0, as below: of the noise's standard deviation
  const float* clean = nullptr;  // (tokens, num_experts), as are all below
  const float* raw = nullptr;
  RandomKey key{};
  std::uint32_t first_row = 0;
  float* noise = nullptr;
  float* noisy = nullptr;
};
void noisy_logits(const Context& context, const NoisyLogits& args);

// The smooth load (appendix A there): probability[t, e] = Phi((clean[t, e] - threshold) / deviation), deviation =
// softplus(raw[t, e]) + floor, where threshold is the top_k-th largest of noisy[t, :] without e, and the deviation
// counts as kMinLoadDeviation where it is less. top_k < num_experts.
constexpr float kMinLoadDeviation = 1e-10f;
struct LoadProbability {
  Index tokens = 0, num_experts = 0, top_k = 1;
  float floor = 0;
  const float* clean = nullptr;  // (tokens, num_experts), as are all below
  const float* raw = nullptr;    //
  const float* noisy = nullptr;  //
  float* probability = nullptr;
};
void load_probability(const Context& context, const LoadProbability& args);

// From d_noisy, the gradient that comes by way of the gate, and d_load[e], that of every probability[:, e], to the
// gradients of clean and raw. The threshold is a noisy logit of another expert, and has its share of the gradient.
// Without d_load neither top_k, floor nor noisy is read.
struct NoisyBackward {
  Index tokens = 0, num_experts = 0, top_k = 1;
  float floor = 0;
  const float* clean = nullptr;    // (tokens, num_experts)
  const float* raw = nullptr;      // (tokens, num_experts)
  const float* noise = nullptr;    // (tokens, num_experts)
  const float* noisy = nullptr;    // (tokens, num_experts)
  const float* d_noisy = nullptr;  // (tokens, num_experts)
  const float* d_load = nullptr;   // (num_experts); null: no load loss
  float* d_clean = nullptr;        // (tokens, num_experts), overwritten; may be d_noisy
  float* d_raw = nullptr;          // (tokens, num_experts), overwritten
};
void noisy_backward(const Context& context, const NoisyBackward& args);

// One choice by raw logits (Chen et al., 2208.02813): noisy[t, e] = logits[t, e] + u, u uniform over [0, 1):
// to_unit_float(word e % 4 of block e / 4 of row first_row + t). The choice is the first largest, its weight the noisy
// logit itself. A row with NaN takes an expert that exists.
struct NoisyChoice {
  Index tokens = 0, num_experts = 0;
  const float* logits = nullptr;  // (tokens, num_experts)
  RandomKey key{};
  std::uint32_t first_row = 0;
  std::int32_t* experts = nullptr;  // (tokens)
  float* weights = nullptr;         // (tokens)
};
void noisy_choice(const Context& context, const NoisyChoice& args);

// d_logits[t, e] = d_weights[t] where e was chosen, 0 elsewhere.
struct NoisyChoiceBackward {
  Index tokens = 0, num_experts = 0;
  const std::int32_t* experts = nullptr;  // (tokens)
  const float* d_weights = nullptr;       // (tokens)
  float* d_logits = nullptr;              // (tokens, num_experts), overwritten
};
void noisy_choice_backward(const Context& context, const NoisyChoiceBackward& args);

// Expert choice (Zhou et al., 2202.09368): every expert takes the `capacity` tokens with its largest scores, the
// earlier token where equal. experts[t * num_experts + e] = e where e took t, else -1; weights there = scores[t, e],
// else 0. capacity <= tokens. A score that is NaN is smaller than all others.
struct ExpertChoice {
  Index tokens = 0, num_experts = 0, capacity = 0;
  const float* scores = nullptr;    // (tokens, num_experts)
  std::int32_t* experts = nullptr;  // (tokens * num_experts)
  float* weights = nullptr;         // (tokens * num_experts)
};
void expert_choice(const Context& context, const ExpertChoice& args);

// What results tell of a microbatch's routes: weight_sums[e] = sum of the weights of e's assignments (null weights: 1
// each), in order; *entropy_sum = sum over tokens of the entropy of its probabilities, in nats, 0 ln 0 = 0.
struct RouteStatistics {
  Index tokens = 0, num_experts = 0, top_k = 1;
  const std::int32_t* experts = nullptr;  // (tokens * top_k)
  const float* weights = nullptr;         // (tokens * top_k); null: all 1
  const float* probabilities = nullptr;   // (tokens, num_experts); null: no gate, *entropy_sum = 0
  float* weight_sums = nullptr;           // (num_experts)
  float* entropy_sum = nullptr;           // (1)
};
void route_statistics(const Context& context, const RouteStatistics& args);

}  // namespace switchyard::kernels
