// Evaluation: a row goes down one path and visits one leaf. Products are sums in an order that follows from the widths,
// by explicit fused steps, so that a row comes to the same bits in whichever kernel and beside whichever rows.
#include <span>

#include "kernels/cuda/four_floats.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/sort_by_expert.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kRows = 8;       // of a block that visits leaves
constexpr int kUnits = 4;      // hidden units that a warp computes together
constexpr Index kTile = 1024;  // hidden units of a leaf that a block holds at a time: 32 KB
constexpr Index kMostSorted = 1024;

template <bool kInFours>
__global__ void descent_kernel(TreeDescent args) {
  const auto width = static_cast<int>(args.width);
  for (Index row = row_of_warp(); row < args.rows; row += warps_together()) {
    const float* x = args.x + row * args.width;
    Index node = 0;
    for (Index level = 0; level < args.depth; ++level) {
      const float* w = args.weight + node * args.width;
      float sum = 0;
      for (int i = 4 * lane(); i < width; i += kFoursOfWarp)
        sum = add_dot(sum, load_four<kInFours>(x + i, width - i), load_four<kInFours>(w + i, width - i));
      node = 2 * node + (warp_sum(sum) + args.bias[node] >= 0 ? 2 : 1);
    }
    if (lane() == 0) args.leaf[row] = static_cast<std::int32_t>(node - (num_leaves(args.depth) - 1));
  }
}

// hidden[unit * kRows + r] = max(x[rows[r]] w1[unit] + b1[unit], 0) for `count` rows; NaN stays. A warp has kUnits
// units at a time: each value that it loads is used for as many units, or rows, as there are. Here and in outputs()
// `leaf` is a tile of a leaf.
template <bool kInFours>
__device__ void hidden_units(const LeafForward& leaf, const Index* rows, int count, float* hidden) {
  const auto width = static_cast<int>(leaf.width), units = static_cast<int>(leaf.leaf_width);
  for (int first = kUnits * warp(); first < units; first += kUnits * kWarps) {
    float sums[kUnits][kRows] = {};
    for (int i = 4 * lane(); i < width; i += kFoursOfWarp) {
      float4 w[kUnits];
#pragma unroll
      for (int u = 0; u < kUnits; ++u)
        w[u] = first + u < units ? load_four<kInFours>(leaf.w1 + (first + u) * leaf.width + i, width - i)
                                 : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= count) break;
        const float4 x = load_four<kInFours>(leaf.x + rows[r] * leaf.width + i, width - i);
#pragma unroll
        for (int u = 0; u < kUnits; ++u) sums[u][r] = add_dot(sums[u][r], x, w[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= count) break;
        const float sum = warp_sum(sums[u][r]);
        if (lane() > 0 || first + u >= units) continue;
        const float z = sum + leaf.b1[first + u];
        hidden[(first + u) * kRows + r] = z <= 0 ? 0.0f : z;
      }
  }
}

// y[rows[r]] = residual[rows[r]] + hidden w2 + b2; a thread has every kThreads-th column. Units are added in their
// order: between tiles the sums wait in y, and the last tile adds the residual.
__device__ void outputs(const LeafForward& leaf, const Index* rows, int count, bool is_first, const float* residual,
                        const float* hidden) {
  for (Index col = threadIdx.x; col < leaf.out; col += kThreads) {
    float sums[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = is_first || r >= count ? leaf.b2[col] : leaf.y[rows[r] * leaf.out + col];
    for (Index unit = 0; unit < leaf.leaf_width; ++unit) {
      const float w = leaf.w2[unit * leaf.out + col];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = fmaf(hidden[unit * kRows + r], w, sums[r]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      const Index place = rows[r] * leaf.out + col;
      leaf.y[place] = (residual ? residual[place] : 0.0f) + sums[r];
    }
  }
}

// The whole block: at most kRows rows at one leaf. hidden: (kTile or less, kRows), shared, of which the columns that no
// row has are never used.
template <bool kInFours>
__device__ void visit_leaf(const LeafForward& leaf, const Index* rows, int count, const float* residual,
                           float* hidden) {
  LeafForward tile = leaf;
  for (Index first = 0; first < leaf.leaf_width; first += kTile) {
    const Index left = leaf.leaf_width - first;
    tile.leaf_width = left < kTile ? left : kTile;
    tile.w1 = leaf.w1 + first * leaf.width;
    tile.b1 = leaf.b1 + first;
    tile.w2 = leaf.w2 + first * leaf.out;
    hidden_units<kInFours>(tile, rows, count, hidden);
    __syncthreads();
    outputs(tile, rows, count, first == 0, left <= kTile ? residual : nullptr, hidden);
    __syncthreads();  // hidden can be overwritten
  }
}

// As many leaves as a kernel's arguments hold.
struct Leaves {
  static constexpr int kMost = 32;
  LeafForward leaf[kMost];
  Index first_block[kMost + 1] = {};
  int count = 0;
};

template <bool kInFours>
__global__ void __launch_bounds__(kThreads) leaf_forward_kernel(Leaves leaves) {
  int l = 0;
  while (blockIdx.x >= leaves.first_block[l + 1]) ++l;
  const LeafForward& leaf = leaves.leaf[l];
  const Index first = (blockIdx.x - leaves.first_block[l]) * kRows, left = leaf.rows - first;
  Index rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) rows[r] = first + r;
  visit_leaf<kInFours>(leaf, rows, static_cast<int>(left < kRows ? left : kRows), nullptr, dynamic_shared<float>());
}

// A block takes kRows rows that stand next to each other when sorted by leaf, and goes from leaf to leaf of theirs.
template <bool kInFours>
__global__ void __launch_bounds__(kThreads)
    tree_forward_kernel(TreeForward args, const std::int32_t* leaf_of_row, const std::int32_t* sorted) {
  const Index begin = static_cast<Index>(blockIdx.x) * kRows;
  const auto total = static_cast<int>(args.rows - begin < kRows ? args.rows - begin : kRows);
  const auto row_at = [&](int i) { return sorted ? Index{sorted[begin + i]} : begin + i; };
  for (int first = 0, count = 0; first < total; first += count) {
    const Index e = leaf_of_row[row_at(first)];
    Index rows[kRows];
    count = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      rows[r] = 0;
      if (count < r || first + r >= total) continue;
      rows[r] = row_at(first + r);
      if (leaf_of_row[rows[r]] == e) ++count;
    }
    const LeafForward leaf{.rows = 0,
                           .width = args.width,
                           .leaf_width = args.leaf_width,
                           .out = args.out,
                           .x = args.x,
                           .w1 = args.w1 + e * args.leaf_width * args.width,
                           .b1 = args.b1 + e * args.leaf_width,
                           .w2 = args.w2 + e * args.leaf_width * args.out,
                           .b2 = args.b2 + e * args.out,
                           .y = args.y};
    visit_leaf<kInFours>(leaf, rows, count, args.residual, dynamic_shared<float>());
  }
}

LaunchShape visit_shape(Index blocks, Index leaf_width) {
  const Index units = leaf_width < kTile ? leaf_width : kTile;
  return {.blocks = blocks, .threads = kThreads, .shared_bytes = units * kRows * Index{sizeof(float)}};
}

void visit_leaves(const Context& context, const Leaves& leaves, bool fours) {
  Index widest = 0;
  for (int l = 0; l < leaves.count; ++l)
    widest = leaves.leaf[l].leaf_width > widest ? leaves.leaf[l].leaf_width : widest;
  launch(context, visit_shape(leaves.first_block[leaves.count], widest),
         fours ? leaf_forward_kernel<true> : leaf_forward_kernel<false>, leaves);
}

}  // namespace

void tree_descent(const Context& context, const TreeDescent& args) {
  const bool fours = are_aligned(args.width, args.x, args.weight);
  launch(context, warp_for_each(args.rows), fours ? descent_kernel<true> : descent_kernel<false>, args);
}

void leaf_forward(const Context& context, std::span<const LeafForward> all) {
  for (std::size_t first = 0; first < all.size(); first += Leaves::kMost) {
    Leaves leaves;
    bool fours = true;
    for (std::size_t i = first; i < all.size() && leaves.count < Leaves::kMost; ++i, ++leaves.count) {
      const LeafForward& leaf = leaves.leaf[leaves.count] = all[i];
      fours = fours && are_aligned(leaf.width, leaf.x, leaf.w1);
      leaves.first_block[leaves.count + 1] = leaves.first_block[leaves.count] + ceil_div(leaf.rows, kRows);
    }
    visit_leaves(context, leaves, fours);
  }
}

// Rows are sorted by leaf where several of them meet in one.
void tree_forward(const Context& context, const TreeForward& args) {
  const Index leaves = num_leaves(args.depth);
  const bool sorts = leaves <= args.rows && leaves <= kMostSorted;
  const Index room = sorts ? leaves + 2 * args.rows + sort_room(args.rows, leaves) : 0;
  std::int32_t* leaf_of_row = workspace<std::int32_t>(context, args.rows + room);
  std::int32_t* sorted = leaf_of_row + args.rows;
  tree_descent(context, {.rows = args.rows,
                         .width = args.width,
                         .depth = args.depth,
                         .x = args.x,
                         .weight = args.weight,
                         .bias = args.bias,
                         .leaf = leaf_of_row});
  if (sorts)
    sort_by_expert(context,
                   {.assignments = args.rows,
                    .num_experts = leaves,
                    .experts = leaf_of_row,
                    .tokens_per_expert = sorted + 2 * args.rows,
                    .assignment_of_slot = sorted,
                    .slot_of_assignment = sorted + args.rows},
                   sorted + 2 * args.rows + leaves);
  const bool fours = are_aligned(args.width, args.x, args.w1);
  launch(context, visit_shape(ceil_div(args.rows, kRows), args.leaf_width),
         fours ? tree_forward_kernel<true> : tree_forward_kernel<false>, args,
         static_cast<const std::int32_t*>(leaf_of_row), static_cast<const std::int32_t*>(sorts ? sorted : nullptr));
}

}  // namespace switchyard::kernels::cuda
