#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.hpp"
#include "kernels/cpu/choose_largest.hpp"
#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Standard normal, from two words (Box & Muller, 1958).
inline float normal(std::uint32_t word1, std::uint32_t word2) {
  return std::sqrt(-2.0f * vector_log(1.0f - to_unit_float(word1))) * cos_of_turns(to_unit_float(word2));
}

// Where noise as good as vanishes, the load's probability is a step, and its slope must not be infinite.
inline float deviation(float raw, float floor) {
  const float value = softplus(raw) + floor;
  return value < kMinLoadDeviation ? kMinLoadDeviation : value;
}

void require_room(const char* operation, Index top_k, Index num_experts) {
  if (top_k < 1 || top_k >= num_experts)
    fail("{}: the smooth load of {} chosen experts needs more experts than {}: a router is wrong.", operation, top_k,
         num_experts);
}

// chosen[0 .. top_k]: the top_k + 1 largest. An expert of the first top_k has the last as its threshold, an expert
// beyond them the one before it.
void choose_thresholds(Index num_experts, Index top_k, const float* noisy, std::int32_t* chosen, float* thresholds) {
  choose_largest(
      0, num_experts, top_k + 1, [=](Index e) { return noisy[e]; }, chosen);
  std::fill_n(thresholds, num_experts, noisy[chosen[top_k - 1]]);
  for (Index j = 0; j < top_k; ++j) thresholds[chosen[j]] = noisy[chosen[top_k]];
}

}  // namespace

void noisy_logits(const Context& context, const NoisyLogits& args) {
  const Index num_experts = args.num_experts, num_blocks = ceil_div(num_experts, 2);
  const Index padded = 2 * num_blocks;  // experts, of two words each
  for_row_blocks(context, args.tokens, [&](Index, Index first_token, Index end_token) {
    thread_local Scratch<std::uint32_t> scratch_words;
    thread_local Scratch<float> scratch_normals;
    const Index rows = end_token - first_token, first = first_token * num_experts, size = rows * num_experts;
    std::uint32_t* words = scratch_words.get(rows * 2 * padded + kDropoutSlack);
    float* normals = scratch_normals.get(rows * padded);
    many_random_words(args.key, args.first_row + static_cast<std::uint32_t>(first_token), rows, num_blocks, words);
#pragma omp simd
    for (Index i = 0; i < rows * padded; ++i) normals[i] = normal(words[2 * i], words[2 * i + 1]);
    float* noisy = args.noisy + first;
    float* noise = args.noise + first;
    const float* clean = args.clean + first;
    const float* raw = args.raw + first;
    for (Index row = 0; row < rows; ++row)
      for (Index e = 0; e < num_experts; ++e) noise[row * num_experts + e] = normals[row * padded + e];
#pragma omp simd
    for (Index i = 0; i < size; ++i) noisy[i] = clean[i] + noise[i] * (softplus(raw[i]) + args.floor);
  });
}

void load_probability(const Context& context, const LoadProbability& args) {
  const Index num_experts = args.num_experts;
  require_room("load_probability", args.top_k, num_experts);
  for_row_blocks(context, args.tokens, [&](Index, Index first_token, Index end_token) {
    thread_local Scratch<std::int32_t> scratch;
    std::int32_t* chosen = scratch.get(args.top_k + 1);
    for (Index i = first_token * num_experts; i < end_token * num_experts; i += num_experts)
      choose_thresholds(num_experts, args.top_k, args.noisy + i, chosen, args.probability + i);
#pragma omp simd
    for (Index i = first_token * num_experts; i < end_token * num_experts; ++i)
      args.probability[i] = gaussian((args.clean[i] - args.probability[i]) / deviation(args.raw[i], args.floor)).cdf;
  });
}

namespace {

// d_clean = d_noisy, d_raw = d_noisy noise sigmoid(raw), for elements [first, end)
void through_the_noise(const NoisyBackward& args, Index first, Index end) {
#pragma omp simd
  for (Index i = first; i < end; ++i) {
    const float d_noisy = args.d_noisy[i];
    args.d_raw[i] = d_noisy * args.noise[i] * sigmoid(args.raw[i]);
    args.d_clean[i] = d_noisy;
  }
}

// With u = (clean - threshold) / deviation: pull = d_load pdf(u) / deviation is added to clean's gradient, taken from
// the threshold's, which is another expert's noisy logit, and - pull u sigmoid(raw) added to raw's.
void through_the_load(const NoisyBackward& args, Index first_token, Index end_token) {
  const Index num_experts = args.num_experts, top_k = args.top_k;
  thread_local Scratch<std::int32_t> scratch_chosen;
  thread_local Scratch<float> scratch_pulls;
  std::int32_t* chosen = scratch_chosen.get(top_k + 1);
  float* pulls = scratch_pulls.get(num_experts);
  for (Index token = first_token; token < end_token; ++token) {
    const Index first = token * num_experts;
    const float* noise = args.noise + first;
    const float* clean = args.clean + first;
    const float* raw = args.raw + first;
    float* d_clean = args.d_clean + first;
    float* d_raw = args.d_raw + first;
    choose_thresholds(num_experts, top_k, args.noisy + first, chosen, pulls);
#pragma omp simd
    for (Index e = 0; e < num_experts; ++e) {
      const float inverse = 1.0f / deviation(raw[e], args.floor), u = (clean[e] - pulls[e]) * inverse;
      pulls[e] = args.d_load[e] * gaussian(u).pdf * inverse;
      d_clean[e] += pulls[e];
      d_raw[e] -= pulls[e] * u * sigmoid(raw[e]);
    }
    const auto pull_threshold = [&](Index expert, float pull) {
      d_clean[expert] -= pull;
      d_raw[expert] -= pull * noise[expert] * sigmoid(raw[expert]);
    };
    float of_chosen = 0;
    for (Index j = 0; j < top_k; ++j) {
      of_chosen += pulls[chosen[j]];
      pulls[chosen[j]] = 0;
    }
    pull_threshold(chosen[top_k], of_chosen);
    pull_threshold(chosen[top_k - 1], sum_of_terms(0, num_experts, [=](Index e, auto at) { return at(pulls + e); }));
  }
}

}  // namespace

void noisy_backward(const Context& context, const NoisyBackward& args) {
  if (args.d_load) require_room("noisy_backward", args.top_k, args.num_experts);
  for_row_blocks(context, args.tokens, [&](Index, Index first_token, Index end_token) {
    through_the_noise(args, first_token * args.num_experts, end_token * args.num_experts);
    if (args.d_load) through_the_load(args, first_token, end_token);
  });
}

void noisy_choice(const Context& context, const NoisyChoice& args) {
  const Index num_experts = args.num_experts;
  for_rows(context, args.tokens, [&](Index token) {
    const float* logits = args.logits + token * num_experts;
    const auto row = args.first_row + static_cast<std::uint32_t>(token);
    Index chosen = 0;
    float largest = 0;
    std::array<std::uint32_t, 4> words{};
    for (Index e = 0; e < num_experts; ++e) {
      if (e % 4 == 0) words = random_words(args.key, row, static_cast<std::uint32_t>(e / 4));
      const float noisy = logits[e] + to_unit_float(words[static_cast<std::size_t>(e % 4)]);
      if (e > 0 && !(noisy > largest)) continue;
      chosen = e;
      largest = noisy;
    }
    args.experts[token] = static_cast<std::int32_t>(chosen);
    args.weights[token] = largest;
  });
}

void noisy_choice_backward(const Context& context, const NoisyChoiceBackward& args) {
  for_rows(context, args.tokens, [&](Index token) {
    float* d_logits = args.d_logits + token * args.num_experts;
    std::fill_n(d_logits, args.num_experts, 0.0f);
    d_logits[args.experts[token]] = args.d_weights[token];
  });
}

}  // namespace switchyard::kernels::cpu
