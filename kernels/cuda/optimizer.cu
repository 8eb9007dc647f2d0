#include <array>
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

constexpr int kMostArrays = 96;  // of one launch: kernels take at most 4 KB of arguments

// Several arrays as one grid: array i takes blocks first_block[i] .. first_block[i + 1] - 1, as many as by itself.
struct SquaresBatch {
  int count = 0;
  std::array<SumOfSquares, kMostArrays> arrays{};
  std::array<Index, kMostArrays + 1> first_block{};
};
static_assert(sizeof(SquaresBatch) <= 4000);

// Thread t adds elements t, t + 256, ... of its block's.
__global__ void __launch_bounds__(kSumThreads) block_squares_kernel(SquaresBatch batch, double* sums) {
  std::size_t which = 0;
  while (static_cast<Index>(blockIdx.x) >= batch.first_block[which + 1]) ++which;
  const SumOfSquares& args = batch.arrays[which];
  const Index first = (static_cast<Index>(blockIdx.x) - batch.first_block[which]) * kElementsPerBlock;
  const Index end = first + kElementsPerBlock < args.size ? first + kElementsPerBlock : args.size;
  double sum = 0;
  for (Index i = first + threadIdx.x; i < end; i += kSumThreads) {
    const auto value = static_cast<double>(args.x[i]);
    sum = fma(value, value, sum);
  }
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block for each array, over all sums of its blocks.
__global__ void __launch_bounds__(kSumThreads) sum_kernel(SquaresBatch batch, const double* sums) {
  const std::size_t which = blockIdx.x;
  double sum = 0;
  for (Index i = batch.first_block[which] + threadIdx.x; i < batch.first_block[which + 1]; i += kSumThreads)
    sum += sums[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) *batch.arrays[which].sum = sum;
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

void sum_of_squares(const Context& context, std::span<const SumOfSquares> arrays) {
  SquaresBatch batch;
  const auto flush = [&] {
    const Index num_blocks = batch.first_block[static_cast<std::size_t>(batch.count)];
    double* const sums = workspace<double>(context, num_blocks);
    launch(context, {.blocks = num_blocks, .threads = kSumThreads}, block_squares_kernel, batch, sums);
    launch(context, {.blocks = batch.count, .threads = kSumThreads}, sum_kernel, batch, sums);
    batch = SquaresBatch();
  };
  for (const SumOfSquares& args : arrays) {
    if (batch.count == kMostArrays) flush();
    const auto i = static_cast<std::size_t>(batch.count++);
    batch.arrays[i] = args;
    batch.first_block[i + 1] = batch.first_block[i] + ceil_div(args.size, kElementsPerBlock);
  }
  flush();
}

}  // namespace switchyard::kernels::cuda
