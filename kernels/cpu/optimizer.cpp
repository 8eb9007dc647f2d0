#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

void adam(const Context& context, const Adam& args) {
  const auto step = static_cast<double>(args.step);
  const auto step_size = static_cast<float>(args.learning_rate / (1 - std::pow(double{args.beta1}, step)));
  const auto inverse_root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(double{args.beta2}, step)));
  const float coupled_decay = args.decoupled ? 0.0f : args.weight_decay;
  const float keep = args.decoupled ? 1.0f - args.learning_rate * args.weight_decay : 1.0f;
  for_element_blocks(context, args.size, [&](Index first, Index end) {
    float* p = args.parameters;
    float* m = args.first_moments;
    float* v = args.second_moments;
#pragma omp simd
    for (Index i = first; i < end; ++i) {
      const float g = (args.gradient_scale * args.gradients[i] + 0.0f) + coupled_decay * p[i];
      m[i] = args.beta1 * m[i] + (1 - args.beta1) * g;
      v[i] = args.beta2 * v[i] + (1 - args.beta2) * (g * g);
      p[i] = keep * p[i] - step_size * m[i] / (std::sqrt(v[i]) * inverse_root_correction + args.epsilon);
    }
  });
}

void sgd(const Context& context, const Sgd& args) {
  for_element_blocks(context, args.size, [&](Index first, Index end) {
    float* p = args.parameters;
    float* velocity = args.velocities;
#pragma omp simd
    for (Index i = first; i < end; ++i) {
      const float g = args.gradient_scale * args.gradients[i] + args.weight_decay * p[i];
      if (velocity) velocity[i] = args.momentum * velocity[i] + g;
      p[i] -= args.learning_rate * (velocity ? velocity[i] : g);
    }
  });
}

namespace {

void sum_squares_of_one(const Context& context, const SumOfSquares& args) {
  thread_local Scratch<double> scratch;
  const Index num_blocks = ceil_div(args.size, kElementsPerBlock);
  double* block_sums = scratch.get(num_blocks);
  for_element_blocks(context, args.size, [&](Index first, Index end) {
    constexpr Index kSums = 32;  // interleaved, so that one addition need not wait for the one before
    double sums[kSums] = {};
    for (Index begin = first; begin < end; begin += kSums) {
      const Index count = std::min(kSums, end - begin);
#pragma omp simd
      for (Index i = 0; i < count; ++i) sums[i] += double{args.x[begin + i]} * double{args.x[begin + i]};
    }
    block_sums[first / kElementsPerBlock] = std::accumulate(sums, sums + kSums, 0.0);
  });
  *args.sum = 0;
  for (Index block_idx = 0; block_idx < num_blocks; ++block_idx) *args.sum += block_sums[block_idx];
}

}  // namespace

void sum_of_squares(const Context& context, std::span<const SumOfSquares> arrays) {
  for (const SumOfSquares& args : arrays) sum_squares_of_one(context, args);
}

}  // namespace switchyard::kernels::cpu
