#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// Every rounding is spelt out: a compiler that chose which product to fuse with a sum, one way here and another there,
// would give an element other bits where the arrays are cut elsewhere.
struct AdamFactors {
  float step_size, inverse_root_correction, coupled_decay, keep;
};

__global__ void adam_kernel(Adam args, AdamFactors factors) {
  const float rest1 = 1 - args.beta1, rest2 = 1 - args.beta2;
  for (Index i = global_thread(); i < args.size; i += num_threads()) {
    const float p = args.parameters[i];
    const float g = fmaf(factors.coupled_decay, p, fmaf(args.gradient_scale, args.gradients[i], 0.0f));
    const float m = fmaf(args.beta1, args.first_moments[i], rest1 * g);
    const float v = fmaf(args.beta2, args.second_moments[i], rest2 * (g * g));
    const float root = fmaf(sqrtf(v), factors.inverse_root_correction, args.epsilon);
    args.first_moments[i] = m;
    args.second_moments[i] = v;
    args.parameters[i] = fmaf(factors.keep, p, -(factors.step_size * m / root));
  }
}

__global__ void sgd_kernel(Sgd args) {
  for (Index i = global_thread(); i < args.size; i += num_threads()) {
    const float p = args.parameters[i];
    float g = fmaf(args.gradient_scale, args.gradients[i], args.weight_decay * p);
    if (args.velocities) args.velocities[i] = g = fmaf(args.momentum, args.velocities[i], g);
    args.parameters[i] = fmaf(-args.learning_rate, g, p);
  }
}

constexpr int kSumThreads = 256;
constexpr Index kElementsPerBlock = 8192;

// Thread t adds elements t, t + 256, ... of its block's.
__global__ void __launch_bounds__(kSumThreads) block_squares_kernel(const float* x, Index size, double* sums) {
  const Index first = static_cast<Index>(blockIdx.x) * kElementsPerBlock;
  const Index end = first + kElementsPerBlock < size ? first + kElementsPerBlock : size;
  double sum = 0;
  for (Index i = first + threadIdx.x; i < end; i += kSumThreads) {
    const auto value = static_cast<double>(x[i]);
    sum = fma(value, value, sum);
  }
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block, over all sums of blocks.
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const double* sums, Index count, double* total) {
  double sum = 0;
  for (Index i = threadIdx.x; i < count; i += kSumThreads) sum += sums[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

void adam(const Context& context, const Adam& args) {
  const auto step = static_cast<double>(args.step);
  const AdamFactors factors{
      .step_size = static_cast<float>(args.learning_rate / (1 - std::pow(double{args.beta1}, step))),
      .inverse_root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(double{args.beta2}, step))),
      .coupled_decay = args.decoupled ? 0.0f : args.weight_decay,
      .keep = args.decoupled ? 1.0f - args.learning_rate * args.weight_decay : 1.0f};
  launch(context, grid_for(args.size), adam_kernel, args, factors);
}

void sgd(const Context& context, const Sgd& args) { launch(context, grid_for(args.size), sgd_kernel, args); }

void sum_of_squares(const Context& context, const SumOfSquares& args) {
  const Index num_blocks = ceil_div(args.size, kElementsPerBlock);
  double* const sums = workspace<double>(context, num_blocks);
  launch(context, {.blocks = num_blocks, .threads = kSumThreads}, block_squares_kernel, args.x, args.size, sums);
  launch(context, {.blocks = 1, .threads = kSumThreads}, sum_kernel, sums, num_blocks, args.sum);
}

}  // namespace switchyard::kernels::cuda
