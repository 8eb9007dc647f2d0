// Passes over (rows, cols) arrays, with or without sums over the rows. A thread keeps its eight columns and goes down
// the rows of a row block, so that what belongs to a column (a bias, a sum) stays in registers.
// Sums over rows: each row block adds its own rows to a row of partial sums, then the partial sums are added in block
// order. How rows are cut follows from the shape alone, and so do the bits.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fours.cuh"

namespace switchyard::kernels::cuda {

// A block of threads takes `octets` times eight columns of `rows_at_once` rows at a time.
struct ColumnCut {
  int cols = 0, tiles = 0, octets = 0, rows_at_once = 0;

  int threads() const { return static_cast<int>(round_up(octets * rows_at_once, kWarpSize)); }
  Index sums_bytes() const { return Index{sizeof(float)} * 8 * octets * rows_at_once; }
};

constexpr int kColumnPassThreads = 256, kColumnPassBlocks = 3;  // of a block; on a multiprocessor at a time

inline ColumnCut cut_columns(Index cols) {
  if (cols == 0) return {};
  const Index octets = ceil_div(cols, 8), tiles = ceil_div(octets, kColumnPassThreads);
  const Index octets_of_tile = ceil_div(octets, tiles);
  return {.cols = static_cast<int>(cols),
          .tiles = static_cast<int>(tiles),
          .octets = static_cast<int>(octets_of_tile),
          .rows_at_once = static_cast<int>(kColumnPassThreads / octets_of_tile)};
}

struct RowCut {
  Index rows = 0, rows_per_block = 0, row_blocks = 0;
};

inline RowCut cut_rows(Index rows, const ColumnCut& columns, Index most_row_blocks) {
  constexpr Index kFewestRows = 16;
  if (rows == 0 || columns.cols == 0) return {};
  const Index rows_per_block = std::max({kFewestRows, Index{columns.rows_at_once}, ceil_div(rows, most_row_blocks)});
  return {rows, rows_per_block, ceil_div(rows, rows_per_block)};
}

// Several arrays of as many columns as one grid: array i takes blocks first_block[i] .. first_block[i + 1] - 1, as many
// as by itself.
template <typename Pass, int kMost>
struct ColumnGrid {
  struct Segment {
    Pass pass;
    RowCut cut;
    float* partial_sums = nullptr;  // (row_blocks, cols), where there are sums
  };
  std::array<Segment, kMost> segments{};
  std::array<Index, kMost + 1> first_block{};
};

template <bool kAligned, bool kSums, typename Pass, int kMost>
__global__ void __launch_bounds__(kColumnPassThreads, kColumnPassBlocks)
    column_pass_kernel(ColumnGrid<Pass, kMost> grid, ColumnCut cut) {
  std::size_t i = 0;
  if constexpr (kMost > 1)
    while (static_cast<Index>(blockIdx.x) >= grid.first_block[i + 1]) ++i;
  const auto& segment = grid.segments[i];
  const RowCut rows = segment.cut;
  const auto block = static_cast<int>(static_cast<Index>(blockIdx.x) - grid.first_block[i]);
  const Index row_block = block / cut.tiles;
  const int thread = static_cast<int>(threadIdx.x), place = thread / cut.octets;
  const int tile_cols = 8 * cut.octets, first_of_tile = block % cut.tiles * tile_cols;
  const int first = first_of_tile + thread % cut.octets * 8;
  const Octet<kAligned> octet{first, cut.cols - first};
  Eight sums{};
  if (place < cut.rows_at_once && octet.count > 0) {
    const Eight constants = segment.pass.constants(octet);
    const Index first_row = row_block * rows.rows_per_block, end_of_block = first_row + rows.rows_per_block;
    const Index end = end_of_block < rows.rows ? end_of_block : rows.rows;
    for (Index row = first_row + place; row < end; row += cut.rows_at_once) {
      const Eight terms = segment.pass.row(row, octet, constants);
      if constexpr (kSums)
        for (int c = 0; c < 8; ++c) sums.at[c] = __fadd_rn(sums.at[c], terms.at[c]);
    }
  }
  if constexpr (kSums) {
    float* const shared = dynamic_shared<float>();  // (rows_at_once, tile_cols)
    if (place < cut.rows_at_once)
      for (int c = 0; c < 8; ++c) shared[thread * 8 + c] = sums.at[c];
    __syncthreads();
    const int block_size = static_cast<int>(blockDim.x);
    for (int c = thread; c < tile_cols && first_of_tile + c < cut.cols; c += block_size) {
      float sum = 0;
      for (int p = 0; p < cut.rows_at_once; ++p) sum += shared[p * tile_cols + c];
      segment.partial_sums[row_block * cut.cols + first_of_tile + c] = sum;
    }
  }
}

// Where sums go: those of the first `split` columns to one array, the others to another.
struct SumsOut {
  float* first = nullptr;
  Index split = 0;
  float* rest = nullptr;
};

// out[c] = partial_sums[0, c] + partial_sums[1, c] + ..., in an order that follows from `count`; zeros where count = 0.
struct PartialSums {
  Index count = 0;
  const float* partial_sums = nullptr;  // (count, cols)
  SumsOut out{};
};
constexpr int kMostColumnSegments = 16;  // of one launch: kernels take at most 4 KB of arguments
// At most so many of them.
void add_partial_sums(const Context& context, Index cols, std::span<const PartialSums> sums);
inline void add_partial_sums(const Context& context, Index count, Index cols, const float* partial_sums,
                             const SumsOut& out) {
  const PartialSums sums{count, partial_sums, out};
  add_partial_sums(context, cols, {&sums, 1});
}

// One array of a pass.
template <typename Pass>
struct ColumnSegment {
  Index rows = 0;
  bool aligned = false;  // are_aligned() for all arrays that the pass reads or writes by octets
  Pass pass{};
  SumsOut out{};  // where there are sums
};

template <bool kSums, int kMost, typename Pass>
void pass_columns(const Context& context, Index cols, std::span<const ColumnSegment<Pass>> segments) {
  static_assert(sizeof(ColumnGrid<Pass, kMost>) + sizeof(ColumnCut) <= 4096);
  constexpr Index kMostRowBlocks = kSums ? kColumnPassBlocks * kMultiprocessors : 4096;
  const ColumnCut cut = cut_columns(cols);
  ColumnGrid<Pass, kMost> grid;
  bool aligned = true;
  Index row_blocks = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    grid.segments[i] = {segments[i].pass, cut_rows(segments[i].rows, cut, kMostRowBlocks)};
    row_blocks += grid.segments[i].cut.row_blocks;
    grid.first_block[i + 1] = row_blocks * cut.tiles;
    aligned = aligned && segments[i].aligned;
  }
  std::vector<PartialSums> sums;
  if constexpr (kSums) {
    float* partial_sums = workspace<float>(context, row_blocks * cols);
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Index count = grid.segments[i].cut.row_blocks;
      grid.segments[i].partial_sums = partial_sums;
      sums.push_back({count, partial_sums, segments[i].out});
      partial_sums += count * cols;
    }
  }
  launch(context,
         {.blocks = row_blocks * cut.tiles, .threads = cut.threads(), .shared_bytes = kSums ? cut.sums_bytes() : 0},
         aligned ? column_pass_kernel<true, kSums, Pass, kMost> : column_pass_kernel<false, kSums, Pass, kMost>, grid,
         cut);
  if constexpr (kSums) add_partial_sums(context, cols, sums);
}

// For every row and octet of columns: pass.row(row, octet, constants), constants = pass.constants(octet).
template <typename Pass>
void for_columns(const Context& context, Index rows, Index cols, bool aligned, const Pass& pass) {
  const ColumnSegment<Pass> segment{rows, aligned, pass};
  pass_columns<false, 1, Pass>(context, cols, {&segment, 1});
}

// The same, and the sums over rows of what pass.row() returns.
template <typename Pass>
void sum_columns(const Context& context, Index rows, Index cols, bool aligned, const Pass& pass, const SumsOut& out) {
  const ColumnSegment<Pass> segment{rows, aligned, pass, out};
  pass_columns<true, 1, Pass>(context, cols, {&segment, 1});
}

// The same of a list of at most kMostColumnSegments arrays, in one launch, with sums in two.
template <bool kSums, typename Pass>
void pass_columns_of_list(const Context& context, Index cols, const std::vector<ColumnSegment<Pass>>& segments) {
  pass_columns<kSums, kMostColumnSegments, Pass>(context, cols, segments);
}

// body(run) for each run of neighbours that can be such a list.
template <typename Arguments, typename Alike, typename Body>
void for_runs(std::span<const Arguments> list, const Alike& alike, const Body& body) {
  for (std::size_t first = 0, end = 0; first < list.size(); first = end) {
    for (end = first + 1; end < list.size() && end - first < kMostColumnSegments && alike(list[first], list[end]);)
      ++end;
    body(list.subspan(first, end - first));
  }
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
