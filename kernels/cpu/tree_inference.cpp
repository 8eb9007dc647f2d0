// Evaluation: a row goes down one path and visits one leaf.
#include <algorithm>
#include <numeric>

#include "kernels/cpu/dots.hpp"
#include "kernels/cpu/leaf_visit.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

// kRows rows go down side by side: each waits for its own sums only.
template <int kRows>
inline void descend(const TreeDescent& args, Index first_row) {
  constexpr int kChains = kUnitLanes == 16 ? 4 : 2;
  const float* x = args.x + first_row * args.width;
  Index node[kRows] = {};
  for (Index level = 0; level < args.depth; ++level) {
    const float* w[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) w[r] = args.weight + node[r] * args.width;
    FloatLanes chains[kChains][kRows] = {};
    const auto add = [&](int chain, Index i, auto at) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        chains[chain][r] += at(x + r * args.width + i) * at(w[r] + i);
        if (r % args.depth == level) __builtin_prefetch(x + (kRows + r) * args.width + i);
      }
    };
    Index first = 0;
    constexpr Index kStep = kChains * kUnitLanes;
    for (; first + kStep <= args.width; first += kStep)
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c)
        add(c, first + c * kUnitLanes, [](const float* from) { return load_floats(from); });
    for_vectors(args.width - first, [&](Index i, auto at) { add(0, first + i, at); });
    FloatLanes sums[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      sums[r] = chains[0][r] + chains[1][r];
      if constexpr (kChains == 4) sums[r] += chains[2][r] + chains[3][r];
    }
    float logits[kRows];
    store_sums(sums, logits);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) node[r] = 2 * node[r] + (logits[r] + args.bias[node[r]] >= 0 ? 2 : 1);
  }
  for (int r = 0; r < kRows; ++r) args.leaf[first_row + r] = static_cast<std::int32_t>(node[r] - num_nodes(args.depth));
}

void descend(const TreeDescent& args, Index first_row, Index end_row) {
  constexpr int kTogether = 4;
  Index row = first_row;
  for (; row + kTogether <= end_row; row += kTogether) descend<kTogether>(args, row);
  for (; row < end_row; ++row) descend<1>(args, row);
}

// Rows whose descent and leaves are done together: they stay in the second-level cache, and come in groups to each
// leaf.
Index rows_together(const TreeForward& args, int num_threads) {
  constexpr Index kFloats = 96 << 10;
  const Index rows = std::clamp<Index>(kFloats / (args.width + 2 * args.out), 16, 512);
  return std::max<Index>(16, std::min(rows, ceil_div(args.rows, num_threads)));
}

// The rows of a block in order of their leaves, where so few leaves meet in it that sorting pays.
void sort_by_leaf(const std::int32_t* leaf, Index rows, Index leaves, std::int32_t* sorted, std::int32_t* next) {
  std::fill_n(next, leaves + 1, 0);
  for (Index r = 0; r < rows; ++r) ++next[leaf[r] + 1];
  std::partial_sum(next, next + leaves, next);
  for (Index r = 0; r < rows; ++r) sorted[next[leaf[r]]++] = static_cast<std::int32_t>(r);
}

void forward_block(const TreeForward& args, Index first_row, Index rows) {
  thread_local Scratch<std::int32_t> scratch;
  const Index leaves = num_leaves(args.depth);
  const bool sorts = leaves <= rows;
  std::int32_t* leaf = scratch.get(2 * rows + (sorts ? leaves + 1 : 0));
  std::int32_t* sorted = leaf + rows;
  const float* x = args.x + first_row * args.width;
  descend({.rows = rows,
           .width = args.width,
           .depth = args.depth,
           .x = x,
           .weight = args.weight,
           .bias = args.bias,
           .leaf = leaf},
          0, rows);
  if (sorts)
    sort_by_leaf(leaf, rows, leaves, sorted, sorted + rows);
  else
    std::iota(sorted, sorted + rows, 0);
  const float* residual = args.residual ? args.residual + first_row * args.out : nullptr;
  for (Index begin = 0, end = 0; begin < rows; begin = end) {
    const Index e = leaf[sorted[begin]];
    while (end < rows && leaf[sorted[end]] == e) ++end;
    visit_leaf({.width = args.width,
                .leaf_width = args.leaf_width,
                .out = args.out,
                .x = x,
                .w1 = args.w1 + e * args.leaf_width * args.width,
                .b1 = args.b1 + e * args.leaf_width,
                .w2 = args.w2 + e * args.leaf_width * args.out,
                .b2 = args.b2 + e * args.out,
                .y = args.y + first_row * args.out},
               {sorted + begin, static_cast<std::size_t>(end - begin)}, residual);
  }
}

}  // namespace

void tree_descent(const Context& context, const TreeDescent& args) {
  for_row_blocks(context, args.rows, [&](Index, Index first_row, Index end_row) { descend(args, first_row, end_row); });
}

void leaf_forward(const Context& context, std::span<const LeafForward> leaves) {
  // Blocks of rows of every leaf, in one go over the threads.
  constexpr Index kBlockRows = 64;
  const auto num_blocks = [](const LeafForward& leaf) { return ceil_div(leaf.rows, kBlockRows); };
  Index blocks = 0;
  for (const LeafForward& leaf : leaves) blocks += num_blocks(leaf);
  context.threads->parallel_for(blocks, [&](Index block) {
    const LeafForward* leaf = leaves.data();
    for (; block >= num_blocks(*leaf); ++leaf) block -= num_blocks(*leaf);
    std::int32_t rows[kBlockRows];
    const Index first = block * kBlockRows, count = std::min(kBlockRows, leaf->rows - first);
    std::iota(rows, rows + count, static_cast<std::int32_t>(first));
    visit_leaf(*leaf, {rows, static_cast<std::size_t>(count)}, nullptr);
  });
}

void tree_forward(const Context& context, const TreeForward& args) {
  const Index step = rows_together(args, context.threads->num_threads());
  context.threads->parallel_for(ceil_div(args.rows, step), [&](Index block) {
    forward_block(args, block * step, std::min(step, args.rows - block * step));
  });
}

}  // namespace switchyard::kernels::cpu
