#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kWarps = 16;

// A block has 32 columns: warp w adds partial sums w, w + 16, ..., then the warps' sums are added in order.
__global__ void __launch_bounds__(kWarps* kWarpSize)
    add_partial_sums_kernel(Index count, Index cols, const float* partial_sums, SumsOut out) {
  __shared__ float sums[kWarps][kWarpSize];
  const Index col = static_cast<Index>(blockIdx.x) * kWarpSize + lane();
  float sum = 0;
  if (col < cols)
    for (Index n = warp(); n < count; n += kWarps) sum += partial_sums[n * cols + col];
  sums[warp()][lane()] = sum;
  __syncthreads();
  if (warp() != 0 || col >= cols) return;
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += sums[w][lane()];
  (col < out.split ? out.first[col] : out.rest[col - out.split]) = total;
}

struct ColumnSumPass {
  ColumnSum args;
  template <typename Octet>
  __device__ Eight constants(const Octet&) const {
    return {};
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight&) const {
    return load(args.x, row, args.cols, octet);
  }
};

}  // namespace

void add_partial_sums(const Context& context, Index count, Index cols, const float* partial_sums, const SumsOut& out) {
  launch(context, {.blocks = ceil_div(cols, kWarpSize), .threads = kWarps * kWarpSize}, add_partial_sums_kernel, count,
         cols, partial_sums, out);
}

void column_sum(const Context& context, const ColumnSum& args) {
  sum_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x.values), ColumnSumPass{args},
              {args.sums, static_cast<int>(args.cols)});
}

}  // namespace switchyard::kernels::cuda
