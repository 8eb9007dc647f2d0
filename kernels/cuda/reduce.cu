#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

__global__ void tree_carry_kernel(TreeCarry args) {
  for (Index i = global_thread(); i < args.size; i += num_threads()) {
    float sum = args.last[i];
    for (int e = 0; e < args.num_earlier; ++e) sum = args.earlier[static_cast<std::size_t>(e)][i] + sum;
    args.out[i] = sum;
  }
}

__global__ void mean_kernel(Mean args) {
  for (Index i = global_thread(); i < args.size; i += num_threads()) {
    float sum = args.x[i];
    for (Index n = 1; n < args.count; ++n) sum += args.x[n * args.size + i];
    args.mean[i] = sum / static_cast<float>(args.count);
  }
}

// One warp a block: each lane counts its own, then they add up.
__global__ void count_not_finite_kernel(const float* x, Index size, std::int32_t* counts) {
  std::int32_t count = 0;
  for (Index i = global_thread(); i < size; i += num_threads())
    if (!(fabsf(x[i]) <= 3.402823466e38f)) ++count;
  counts[global_thread()] = count;
}

}  // namespace

void tree_carry(const Context& context, const TreeCarry& args) {
  launch(context, grid_for(args.size), tree_carry_kernel, args);
}

void mean(const Context& context, const Mean& args) { launch(context, grid_for(args.size), mean_kernel, args); }

Index count_not_finite(const Context& context, const float* x, Index size) {
  constexpr int kThreads = 32;
  constexpr Index kBlocks = 64, kCounters = kThreads * kBlocks;
  std::int32_t* counters = workspace<std::int32_t>(context, kCounters);
  launch(context, {.blocks = kBlocks, .threads = kThreads}, count_not_finite_kernel, x, size, counters);
  std::int32_t counts[kCounters];
  copy_to_host(context, counts, counters, Index{sizeof counts});
  Index sum = 0;
  for (const std::int32_t count : counts) sum += count;
  return sum;
}

}  // namespace switchyard::kernels::cuda
