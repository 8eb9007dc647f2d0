// A group of lanes for each token; the draws of noisy_logits are a thread's for each two experts.
#include "kernels/cuda/lane_groups.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/scalar_math.cuh"

namespace switchyard::kernels::cuda {

namespace {

// Standard normal, from two words (Box & Muller, 1958).
__device__ float normal(std::uint32_t word1, std::uint32_t word2) {
  return sqrtf(-2.0f * logf(1.0f - to_unit_float(word1))) * cospif(2.0f * to_unit_float(word2));
}

// Where noise as good as vanishes, the load's probability is a step, and its slope must not be infinite.
__device__ float deviation(float raw, float floor) {
  const float value = softplus(raw) + floor;
  return value < kMinLoadDeviation ? kMinLoadDeviation : value;
}

void require_room(const char* operation, Index top_k, Index num_experts) {
  if (top_k < 1 || top_k >= num_experts)
    fail_operation(std::string(operation) + ": the smooth load of " + std::to_string(top_k) +
                   " chosen experts needs more experts than " + std::to_string(num_experts) + ": a router is wrong.");
}

__global__ void noisy_logits_kernel(NoisyLogits args) {
  const Index pairs = ceil_div(args.num_experts, 2);
  for (Index i = global_thread(); i < args.tokens * pairs; i += num_threads()) {
    const Index token = i / pairs, pair = i - token * pairs;
    const auto words =
        random_words(args.key, args.first_row + static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(pair));
    for (Index e = 2 * pair; e < 2 * pair + 2 && e < args.num_experts; ++e) {
      const Index place = token * args.num_experts + e;
      const float noise = e % 2 == 0 ? normal(words[0], words[1]) : normal(words[2], words[3]);
      args.noise[place] = noise;
      args.noisy[place] = fmaf(noise, softplus(args.raw[place]) + args.floor, args.clean[place]);
    }
  }
}

// The threshold of an expert whose rank is at least that of the top_k-th is the next expert's noisy logit, of others
// the top_k-th's.
struct Thresholds {
  Rank last_chosen, next;
  float of_chosen, of_others;

  __device__ bool chosen(Rank rank) const { return rank >= last_chosen; }
  __device__ float of(Rank rank) const { return chosen(rank) ? of_chosen : of_others; }
};
template <int kGroup>
__device__ Thresholds find_thresholds(Index num_experts, Index top_k, const float* noisy, int lane_of_group) {
  Thresholds thresholds{.last_chosen = 0, .next = kAboveAll, .of_chosen = 0, .of_others = 0};
  for (Index j = 0; j <= top_k; ++j) {
    thresholds.last_chosen = thresholds.next;
    thresholds.next = next_largest<kGroup>(0, static_cast<int>(num_experts), lane_of_group, thresholds.next,
                                           [&](int e) { return noisy[e]; });
  }
  thresholds.of_chosen = noisy[index_of(thresholds.next)];
  thresholds.of_others = noisy[index_of(thresholds.last_chosen)];
  return thresholds;
}

template <int kGroup>
__global__ void load_probability_kernel(LoadProbability args) {
  for_grouped_rows<kGroup>(args.tokens, [&](Index token, int lane_of_group, bool real) {
    const Index first = token * args.num_experts;
    const float* noisy = args.noisy + first;
    const Thresholds thresholds = find_thresholds<kGroup>(args.num_experts, args.top_k, noisy, lane_of_group);
    if (!real) return;
    for (int e = lane_of_group; e < args.num_experts; e += kGroup) {
      const float distance = args.clean[first + e] - thresholds.of(rank_of(noisy[e], e));
      args.probability[first + e] = normcdff(distance / deviation(args.raw[first + e], args.floor));
    }
  });
}

// With u = (clean - threshold) / deviation: the pull d_load pdf(u) / deviation is added to clean's gradient, taken from
// the threshold's, which is another expert's noisy logit, and - pull u sigmoid(raw) added to raw's.
struct Pull {
  float value = 0, u = 0;
};
__device__ Pull pull_of(const NoisyBackward& args, const Thresholds& thresholds, Index first, int e) {
  const float inverse = 1.0f / deviation(args.raw[first + e], args.floor);
  const float u = (args.clean[first + e] - thresholds.of(rank_of(args.noisy[first + e], e))) * inverse;
  return {args.d_load[e] * normal_density(u) * inverse, u};
}

// d_clean and d_raw of one expert: by way of the gate, of its own load, and of loads whose threshold it is.
__device__ void write_gradients(const NoisyBackward& args, Index place, const Pull& pull, float as_threshold) {
  const float slope = sigmoid(args.raw[place]), through_noise = args.d_noisy[place] - as_threshold;
  args.d_raw[place] = (through_noise * args.noise[place] - pull.value * pull.u) * slope;
  args.d_clean[place] = through_noise + pull.value;
}

template <int kGroup>
__global__ void noisy_backward_kernel(NoisyBackward args) {
  for_grouped_rows<kGroup>(args.tokens, [&](Index token, int lane_of_group, bool real) {
    const auto num_experts = static_cast<int>(args.num_experts);
    const Index first = token * num_experts;
    if (!args.d_load) {
      for (int e = lane_of_group; e < num_experts && real; e += kGroup) write_gradients(args, first + e, {}, 0);
      return;
    }
    const Thresholds thresholds = find_thresholds<kGroup>(num_experts, args.top_k, args.noisy + first, lane_of_group);
    float of_chosen = 0, of_others = 0;
    for (int e = lane_of_group; e < num_experts; e += kGroup) {
      const float pull = pull_of(args, thresholds, first, e).value;
      (thresholds.chosen(rank_of(args.noisy[first + e], e)) ? of_chosen : of_others) += pull;
    }
    of_chosen = group_sum<kGroup>(of_chosen);
    of_others = group_sum<kGroup>(of_others);
    const int threshold_of_chosen = index_of(thresholds.next), threshold_of_others = index_of(thresholds.last_chosen);
    for (int e = lane_of_group; e < num_experts && real; e += kGroup)
      write_gradients(args, first + e, pull_of(args, thresholds, first, e),
                      e == threshold_of_chosen   ? of_chosen
                      : e == threshold_of_others ? of_others
                                                 : 0.0f);
  });
}

// A lane draws for four experts at a time.
template <int kGroup>
__global__ void noisy_choice_kernel(NoisyChoice args) {
  for_grouped_rows<kGroup>(args.tokens, [&](Index token, int lane_of_group, bool real) {
    const auto num_experts = static_cast<int>(args.num_experts);
    const auto row = args.first_row + static_cast<std::uint32_t>(token);
    Rank own = 0;
    float noisy_of_own = 0;
    for (int e = 4 * lane_of_group; e < num_experts; e += 4 * kGroup) {
      const auto words = random_words(args.key, row, static_cast<std::uint32_t>(e / 4));
      for (int i = 0; i < 4 && e + i < num_experts; ++i) {
        const float noisy =
            args.logits[token * num_experts + e + i] + to_unit_float(words[static_cast<std::size_t>(i)]);
        const Rank rank = rank_of(noisy, e + i);
        if (rank <= own) continue;
        own = rank;
        noisy_of_own = noisy;
      }
    }
    if (group_largest<kGroup>(own) != own || own == 0 || !real) return;
    args.experts[token] = index_of(own);
    args.weights[token] = noisy_of_own;
  });
}

__global__ void noisy_choice_backward_kernel(NoisyChoiceBackward args) {
  for (Index i = global_thread(); i < args.tokens * args.num_experts; i += num_threads()) {
    const Index token = i / args.num_experts;
    args.d_logits[i] = i - token * args.num_experts == args.experts[token] ? args.d_weights[token] : 0.0f;
  }
}

}  // namespace

void noisy_logits(const Context& context, const NoisyLogits& args) {
  launch(context, grid_for(args.tokens * ceil_div(args.num_experts, 2)), noisy_logits_kernel, args);
}

void load_probability(const Context& context, const LoadProbability& args) {
  require_room("load_probability", args.top_k, args.num_experts);
  with_group_for(args.num_experts, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.tokens), load_probability_kernel<kGroup>, args);
  });
}

void noisy_backward(const Context& context, const NoisyBackward& args) {
  if (args.d_load) require_room("noisy_backward", args.top_k, args.num_experts);
  with_group_for(args.num_experts, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.tokens), noisy_backward_kernel<kGroup>, args);
  });
}

void noisy_choice(const Context& context, const NoisyChoice& args) {
  with_group_for(ceil_div(args.num_experts, 4), [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.tokens), noisy_choice_kernel<kGroup>, args);
  });
}

void noisy_choice_backward(const Context& context, const NoisyChoiceBackward& args) {
  launch(context, grid_for(args.tokens * args.num_experts), noisy_choice_backward_kernel, args);
}

}  // namespace switchyard::kernels::cuda
