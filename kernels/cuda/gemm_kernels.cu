#include "kernels/cuda/gemm_kernels.hpp"

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 256, kCols = 4;  // a thread takes four columns at a time
constexpr int kItems = 4;                 // and so many such groups
constexpr int kMostStagings = 32;         // of one launch: kernels take at most 4 KB of arguments

// Several copies as one grid: copy i takes blocks first_block[i] .. first_block[i + 1] - 1.
struct Batch {
  int count = 0;
  std::array<Staging, kMostStagings> stagings{};
  std::array<Index, kMostStagings + 1> first_block{};
};

Index num_blocks(const Staging& s) { return ceil_div(s.rows * (s.ld_to / kCols), kThreads * kItems); }

__device__ inline float4 load_four(const Staging& s, Index row, Index col, bool aligned) {
  const float* from = s.from + row * s.ld_from + col;
  if (aligned && col + kCols <= s.cols) return *reinterpret_cast<const float4*>(from);
  const auto at = [&](Index i) { return col + i < s.cols ? from[i] : 0.0f; };
  return make_float4(at(0), at(1), at(2), at(3));
}

__global__ void __launch_bounds__(kThreads) stage_kernel(Batch batch) {
  int i = 0;
  while (static_cast<Index>(blockIdx.x) >= batch.first_block[static_cast<std::size_t>(i) + 1]) ++i;
  const Staging& s = batch.stagings[static_cast<std::size_t>(i)];
  const auto groups = static_cast<unsigned>(s.ld_to / kCols);  // of a row
  const bool aligned = reinterpret_cast<std::uintptr_t>(s.from) % 16 == 0 && s.ld_from % kCols == 0;
  // The block's first group is `start` of row `first_row`; from there on 32-bit arithmetic is enough.
  const Index first =
      (static_cast<Index>(blockIdx.x) - batch.first_block[static_cast<std::size_t>(i)]) * (kThreads * kItems);
  const Index first_row = first / groups;
  const auto start = static_cast<unsigned>(first - first_row * groups);
#pragma unroll
  for (unsigned item = 0; item < kItems; ++item) {
    const unsigned group = start + item * kThreads + threadIdx.x;
    const Index row = first_row + group / groups, col = static_cast<Index>(group % groups) * kCols;
    if (row >= s.rows) return;
    const float4 x = load_four(s, row, col, aligned);
    const Index place = row * s.ld_to + col;
    if (s.bf16)
      write_rounded(static_cast<Bf16*>(s.to) + place, x);
    else
      store_whole(static_cast<float*>(s.to) + place, x);
  }
}

constexpr int kMostFinishes = 12;  // of one launch

struct FinishBatch {
  int count = 0;
  std::array<Finish, kMostFinishes> all{};
  std::array<Index, kMostFinishes + 1> first_block{};
};
static_assert(sizeof(FinishBatch) <= 4096);

__global__ void finish_kernel(FinishBatch batch) {
  std::size_t which = 0;
  while (static_cast<Index>(blockIdx.x) >= batch.first_block[which + 1]) ++which;
  const Finish& args = batch.all[which];
  const Index block = static_cast<Index>(blockIdx.x) - batch.first_block[which];
  const Index threads = (batch.first_block[which + 1] - batch.first_block[which]) * blockDim.x;
  const Index part_size = args.m * args.ld_parts;
  for (Index i = block * blockDim.x + threadIdx.x; i < args.m * args.n; i += threads) {
    const Index row = i / args.n, col = i - row * args.n;
    const float* part = args.parts + row * args.ld_parts + col;
    float sum = args.num_parts > 0 ? part[0] : 0;
    for (Index p = 1; p < args.num_parts; ++p) sum += part[p * part_size];
    if (args.bias) sum += args.c_rounded ? first_of_pair(bf16_bits(args.bias[col])) : args.bias[col];
    const Index place = row * args.ldc + col;
    for (int e = 0; e < args.num_addends; ++e) sum = args.addends[static_cast<std::size_t>(e)][place] + sum;
    if (args.c_rounded)
      write_rounded(args.c_rounded + place, sum);
    else
      args.c[place] = sum;
  }
}

}  // namespace

void stage(const Context& context, std::span<const Staging> stagings) {
  Batch batch;
  const auto flush = [&] {
    launch(context, {.blocks = batch.first_block[static_cast<std::size_t>(batch.count)], .threads = kThreads},
           stage_kernel, batch);
    batch = Batch();
  };
  for (const Staging& s : stagings) {
    if (batch.count == kMostStagings) flush();
    const auto i = static_cast<std::size_t>(batch.count++);
    batch.stagings[i] = s;
    batch.first_block[i + 1] = batch.first_block[i] + num_blocks(s);
  }
  flush();
}

void finish(const Context& context, std::span<const Finish> all) {
  FinishBatch batch;
  LaunchShape shape;
  const auto flush = [&] {
    shape.blocks = batch.first_block[static_cast<std::size_t>(batch.count)];
    launch(context, shape, finish_kernel, batch);
    batch = FinishBatch();
  };
  for (const Finish& args : all) {
    if (batch.count == kMostFinishes) flush();
    const auto i = static_cast<std::size_t>(batch.count++);
    batch.all[i] = args;
    shape = grid_for(args.m * args.n);
    batch.first_block[i + 1] = batch.first_block[i] + shape.blocks;
  }
  flush();
}

}  // namespace switchyard::kernels::cuda
