// Two launches: sums over blocks of tokens that follow from the shape, then over the blocks.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 256;

struct Blocks {
  Index tokens = 0, count = 0;
  float* sums = nullptr;  // (num_experts + 1, count): of an expert's weights; last, of p ln p
};

// A warp for each expert: a lane adds up every 32nd assignment's.
__device__ void sum_weights(const RouteStatistics& args, const Blocks& blocks, Index first_token, Index end_token) {
  for (Index expert = warp(); expert < args.num_experts; expert += kThreads / kWarpSize) {
    float sum = 0;
    for (Index a = first_token * args.top_k + lane(); a < end_token * args.top_k; a += kWarpSize)
      if (args.experts[a] == expert) sum += args.weights ? args.weights[a] : 1.0f;
    sum = warp_sum(sum);
    if (lane() == 0) blocks.sums[expert * blocks.count + blockIdx.x] = sum;
  }
}

__global__ void block_sums_kernel(RouteStatistics args, Blocks blocks) {
  const Index first_token = blockIdx.x * blocks.tokens;
  const Index end_token = first_token + blocks.tokens < args.tokens ? first_token + blocks.tokens : args.tokens;
  sum_weights(args, blocks, first_token, end_token);
  float sum = 0;
  if (args.probabilities)
    for (Index i = first_token * args.num_experts + threadIdx.x; i < end_token * args.num_experts; i += kThreads) {
      const float p = args.probabilities[i];
      sum += p == 0 ? 0.0f : p * logf(p);
    }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) blocks.sums[args.num_experts * blocks.count + blockIdx.x] = sum;
}

// A warp for each sum.
__global__ void add_blocks_kernel(RouteStatistics args, Blocks blocks) {
  for (Index i = global_thread() / kWarpSize; i <= args.num_experts; i += num_threads() / kWarpSize) {
    float sum = 0;
    for (Index block = lane(); block < blocks.count; block += kWarpSize) sum += blocks.sums[i * blocks.count + block];
    sum = warp_sum(sum);
    if (lane() > 0) continue;
    if (i < args.num_experts)
      args.weight_sums[i] = sum;
    else
      *args.entropy_sum = 0.0f - sum;
  }
}

}  // namespace

void route_statistics(const Context& context, const RouteStatistics& args) {
  Blocks blocks{.tokens = 512 * ceil_div(args.num_experts, 1024)};
  blocks.count = ceil_div(args.tokens, blocks.tokens);
  blocks.sums = workspace<float>(context, (args.num_experts + 1) * blocks.count);
  launch(context, {.blocks = blocks.count, .threads = kThreads}, block_sums_kernel, args, blocks);
  launch(context, grid_for((args.num_experts + 1) * kWarpSize), add_blocks_kernel, args, blocks);
}

}  // namespace switchyard::kernels::cuda
