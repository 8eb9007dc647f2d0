#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kWarps = 16;

struct ListOfPartialSums {
  std::array<PartialSums, kMostColumnSegments> each{};
};

// A block has 32 columns of one array: warp w adds partial sums w, w + 16, ..., then the warps' sums are added in
// order.
__global__ void __launch_bounds__(kWarps* kWarpSize) add_partial_sums_kernel(ListOfPartialSums list, Index cols) {
  __shared__ float sums[kWarps][kWarpSize];
  const auto blocks = static_cast<unsigned>(ceil_div(cols, kWarpSize));  // of an array
  const PartialSums& own = list.each[blockIdx.x / blocks];
  const SumsOut out = own.out;
  const Index col = static_cast<Index>(blockIdx.x % blocks) * kWarpSize + lane();
  float sum = 0;
  if (col < cols)
    for (Index n = warp(); n < own.count; n += kWarps) sum += own.partial_sums[n * cols + col];
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

void add_partial_sums(const Context& context, Index cols, std::span<const PartialSums> sums) {
  ListOfPartialSums list;
  std::copy(sums.begin(), sums.end(), list.each.begin());
  launch(context,
         {.blocks = static_cast<Index>(sums.size()) * ceil_div(cols, kWarpSize), .threads = kWarps * kWarpSize},
         add_partial_sums_kernel, list, cols);
}

void column_sum(const Context& context, std::span<const ColumnSum> segments) {
  const auto alike = [](const ColumnSum& a, const ColumnSum& b) { return a.cols == b.cols; };
  for_runs(segments, alike, [&](std::span<const ColumnSum> run) {
    std::vector<ColumnSegment<ColumnSumPass>> list;
    for (const ColumnSum& s : run) list.push_back({s.rows, are_aligned(s.cols, s.x.values), {s}, {s.sums, s.cols}});
    pass_columns_of_list<true>(context, run[0].cols, list);
  });
}

}  // namespace switchyard::kernels::cuda
