// Passes over (rows, cols) arrays, with or without sums over the rows. A thread keeps its eight columns and goes down
// the rows of a row block, so that what belongs to a column (a bias, a sum) stays in registers.
// Sums over rows: each row block adds its own rows to a row of partial sums, then the partial sums are added in block
// order. How rows are cut follows from the shape alone, and so do the bits.
#pragma once

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fours.cuh"

namespace switchyard::kernels::cuda {

// A block of threads takes `octets` times eight columns of `rows_at_once` rows at a time.
struct ColumnCut {
  Index rows = 0, rows_per_block = 0, row_blocks = 0;
  int cols = 0, tiles = 0, octets = 0, rows_at_once = 0;

  LaunchShape shape(bool sums) const {
    return {.blocks = row_blocks * tiles,
            .threads = static_cast<int>(round_up(octets * rows_at_once, kWarpSize)),
            .shared_bytes = sums ? Index{sizeof(float)} * 8 * octets * rows_at_once : 0};
  }
};

constexpr int kColumnPassThreads = 256;

inline ColumnCut cut_columns(Index rows, Index cols, Index most_row_blocks) {
  constexpr Index kFewestRows = 16;
  if (rows == 0 || cols == 0) return {.cols = static_cast<int>(cols)};
  const Index octets = ceil_div(cols, 8), tiles = ceil_div(octets, kColumnPassThreads);
  const Index octets_of_tile = ceil_div(octets, tiles), rows_at_once = kColumnPassThreads / octets_of_tile;
  const Index rows_per_block = std::max({kFewestRows, rows_at_once, ceil_div(rows, most_row_blocks)});
  return {.rows = rows,
          .rows_per_block = rows_per_block,
          .row_blocks = ceil_div(rows, rows_per_block),
          .cols = static_cast<int>(cols),
          .tiles = static_cast<int>(tiles),
          .octets = static_cast<int>(octets_of_tile),
          .rows_at_once = static_cast<int>(rows_at_once)};
}

// partial_sums: (row_blocks, cols), with kSums.
template <bool kAligned, bool kSums, typename Pass>
__global__ void __launch_bounds__(kColumnPassThreads, 3)
    column_pass_kernel(Pass pass, ColumnCut cut, float* partial_sums) {
  const Index row_block = static_cast<Index>(blockIdx.x) / cut.tiles;
  const int thread = static_cast<int>(threadIdx.x), place = thread / cut.octets;
  const int tile_cols = 8 * cut.octets, first_of_tile = static_cast<int>(blockIdx.x) % cut.tiles * tile_cols;
  const int first = first_of_tile + thread % cut.octets * 8;
  const Octet<kAligned> octet{first, cut.cols - first};
  Eight sums{};
  if (place < cut.rows_at_once && octet.count > 0) {
    const Eight constants = pass.constants(octet);
    const Index first_row = row_block * cut.rows_per_block, end_of_block = first_row + cut.rows_per_block;
    const Index end = end_of_block < cut.rows ? end_of_block : cut.rows;
    for (Index row = first_row + place; row < end; row += cut.rows_at_once) {
      const Eight terms = pass.row(row, octet, constants);
      if constexpr (kSums)
        for (int i = 0; i < 8; ++i) sums.at[i] = __fadd_rn(sums.at[i], terms.at[i]);
    }
  }
  if constexpr (kSums) {
    float* const shared = dynamic_shared<float>();  // (rows_at_once, tile_cols)
    if (place < cut.rows_at_once)
      for (int i = 0; i < 8; ++i) shared[thread * 8 + i] = sums.at[i];
    __syncthreads();
    const int block_size = static_cast<int>(blockDim.x);
    for (int c = thread; c < tile_cols && first_of_tile + c < cut.cols; c += block_size) {
      float sum = 0;
      for (int p = 0; p < cut.rows_at_once; ++p) sum += shared[p * tile_cols + c];
      partial_sums[row_block * cut.cols + first_of_tile + c] = sum;
    }
  }
}

// Where sums go: those of the first `split` columns to one array, the others to another.
struct SumsOut {
  float* first = nullptr;
  int split = 0;
  float* rest = nullptr;
};

// out[c] = partial_sums[0, c] + partial_sums[1, c] + ..., in an order that follows from `count`; zeros where count = 0.
// partial_sums: (count, cols).
void add_partial_sums(const Context& context, Index count, Index cols, const float* partial_sums, const SumsOut& out);

// For every row and octet of columns: pass.row(row, octet, constants), constants = pass.constants(octet). `aligned`:
// are_aligned() for all arrays that the pass reads or writes by octets.
template <typename Pass>
void for_columns(const Context& context, Index rows, Index cols, bool aligned, const Pass& pass) {
  const ColumnCut cut = cut_columns(rows, cols, 4096);
  launch(context, cut.shape(false),
         aligned ? column_pass_kernel<true, false, Pass> : column_pass_kernel<false, false, Pass>, pass, cut, nullptr);
}

// The same, and the sums over rows of what pass.row() returns.
template <typename Pass>
void sum_columns(const Context& context, Index rows, Index cols, bool aligned, const Pass& pass, const SumsOut& out) {
  const ColumnCut cut = cut_columns(rows, cols, 512);
  float* const partial_sums = workspace<float>(context, cut.row_blocks * cols);
  launch(context, cut.shape(true),
         aligned ? column_pass_kernel<true, true, Pass> : column_pass_kernel<false, true, Pass>, pass, cut,
         partial_sums);
  add_partial_sums(context, cut.row_blocks, cols, partial_sums, out);
}

// What dropout multiplies the octet's elements of a row by.
template <bool kAligned>
__device__ inline Eight factors_of_octet(const DropoutFactors& dropout, Index row, const Octet<kAligned>& octet) {
  if (dropout.threshold == 0) return {{1, 1, 1, 1, 1, 1, 1, 1}};
  const auto words = dropout.words(row, octet.first / 8);
  Eight factors;
  for (int i = 0; i < 8; ++i) factors.at[i] = dropout.factor(words, i);
  return factors;
}

}  // namespace switchyard::kernels::cuda
