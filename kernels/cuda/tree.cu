// Training: every row visits all leaves. A group of lanes has a row; sums over rows are made apart, in two launches, of
// blocks of rows that follow from the shape. A node's place, and that of a leaf after all nodes, is i; its children are
// 2i + 1, to the left, and 2i + 2.
#include "kernels/cuda/lane_groups.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/scalar_math.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr float kSaturated = 1e-6f;
constexpr int kSumThreads = 256;
constexpr Index kSumRows = 512;  // of a block that sums over rows

__device__ float entropy(float s) {
  const float p = s < kSaturated ? kSaturated : s > 1 - kSaturated ? 1 - kSaturated : s;
  return -(p * logf(p) + (1 - p) * logf(1 - p));
}

// dH/dz = -z s (1 - s)
__device__ float entropy_slope(float z, float s) { return s < kSaturated || s > 1 - kSaturated ? 0 : -z * s * (1 - s); }

// Whether the children of a row's node are swapped.
template <typename Args>
__device__ bool swapped(const Args& args, Index row, int node) {
  if (!(args.leak > 0)) return false;
  const auto words =
      random_words(args.key, args.first_row + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(node / 4));
  return to_unit_float(words[static_cast<std::size_t>(node % 4)]) < args.leak;
}

// The share of a row that comes to a place: the product over the path up to the root.
__device__ float share_of(const float* choices, int place) {
  float share = 1;
  for (; place > 0; place = (place - 1) / 2) {
    const float right = choices[(place - 1) / 2];
    share *= place % 2 == 0 ? right : 1 - right;
  }
  return share;
}

template <int kGroup>
__global__ void mixture_kernel(TreeMixture args) {
  const auto leaves = static_cast<int>(num_leaves(args.depth)), nodes = leaves - 1;
  for_grouped_rows<kGroup>(args.rows, [&](Index row, int lane_of_group, bool real) {
    float* choices = args.choices + row * nodes;
    for (int i = lane_of_group; i < nodes && real; i += kGroup) {
      const float z = args.logits[row * nodes + i] + args.bias[i];
      const float right = args.hard ? (z >= 0 ? 1.0f : 0.0f) : sigmoid(z);
      choices[i] = swapped(args, row, i) ? 1 - right : right;
    }
    __syncwarp();
    for (int leaf = lane_of_group; leaf < leaves && real; leaf += kGroup)
      args.mixture[row * leaves + leaf] = share_of(choices, nodes + leaf);
  });
}

// With T(i) = c T(right) + (1 - c) T(left) from the leaves' d_mixture upwards, in `below` (nodes):
// d_c = share(i) (T(right) - T(left)).
template <int kGroup>
__global__ void mixture_backward_kernel(TreeMixtureBackward args, float* below_of_groups) {
  const auto leaves = static_cast<int>(num_leaves(args.depth)), nodes = leaves - 1;
  float* below = below_of_groups + global_thread() / kGroup * nodes;
  for_grouped_rows<kGroup>(args.rows, [&](Index row, int lane_of_group, bool real) {
    const float* choices = args.choices + row * nodes;
    const float* d_mixture = args.d_mixture + row * leaves;
    const auto at = [&](int i) { return i < nodes ? below[i] : d_mixture[i - nodes]; };
    for (int count = leaves / 2; count > 0; count /= 2) {  // a level, from the lowest up
      for (int i = count - 1 + lane_of_group; i < 2 * count - 1; i += kGroup) {
        const float left = at(2 * i + 1), difference = at(2 * i + 2) - left;
        below[i] = left + choices[i] * difference;
        if (!real) continue;
        const float d_choice = share_of(choices, i) * difference;
        const float z = args.logits[row * nodes + i] + args.bias[i], s = sigmoid(z);
        const float d = swapped(args, row, i) ? -d_choice : d_choice;
        args.d_logits[row * nodes + i] = d * s * (1 - s) + args.entropy_scale * entropy_slope(z, s);
      }
      __syncwarp();
    }
  });
}

struct EntropyOf {
  TreeMixture args;
  __device__ float operator()(Index place, Index col) const {
    return entropy(sigmoid(args.logits[place] + args.bias[col]));
  }
};
struct ValueOf {
  const float* values;
  __device__ float operator()(Index place, Index) const { return values[place]; }
};

// partial[block, col] = sum over the block's rows of value(place, col). kCols threads have columns side by side, and
// groups of so many threads have rows in turn.
template <int kCols, typename Value>
__global__ void sum_rows_kernel(Index rows, Index cols, Value value, float* partial) {
  constexpr int kTurns = kSumThreads / kCols;
  __shared__ float sums[kSumThreads];
  const Index col_blocks = ceil_div(cols, kCols), block = blockIdx.x / col_blocks;
  const Index col = blockIdx.x % col_blocks * kCols + threadIdx.x % kCols;
  const Index end = (block + 1) * kSumRows < rows ? (block + 1) * kSumRows : rows;
  float sum = 0;
  if (col < cols)
    for (Index row = block * kSumRows + threadIdx.x / kCols; row < end; row += kTurns)
      sum += value(row * cols + col, col);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kCols || col >= cols) return;
  for (int turn = 1; turn < kTurns; ++turn) sum += sums[turn * kCols + static_cast<int>(threadIdx.x)];
  partial[block * cols + col] = sum;
}

// A warp for each column.
__global__ void add_partial_kernel(Index blocks, Index cols, const float* partial, float* out) {
  for (Index col = global_thread() / kWarpSize; col < cols; col += num_threads() / kWarpSize) {
    float sum = 0;
    for (Index block = lane(); block < blocks; block += kWarpSize) sum += partial[block * cols + col];
    sum = warp_sum(sum);
    if (lane() == 0) out[col] = sum;
  }
}

template <typename Value>
void sum_rows(const Context& context, Index rows, Index cols, const Value& value, float* out) {
  const Index blocks = ceil_div(rows, kSumRows);
  float* partial = workspace<float>(context, blocks * cols);
  const auto sum_blocks = [&]<int kCols>() {
    launch(context, {.blocks = blocks * ceil_div(cols, kCols), .threads = kSumThreads}, sum_rows_kernel<kCols, Value>,
           rows, cols, value, partial);
  };
  cols <= 8 ? sum_blocks.template operator()<8>() : sum_blocks.template operator()<32>();
  launch(context, grid_for(cols * kWarpSize), add_partial_kernel, blocks, cols, partial, out);
}

template <int kGroup>
__global__ void scale_leaves_kernel(ScaleLeaves args) {
  for_grouped_rows<kGroup>(args.rows * args.leaves, [&](Index leaf, int lane_of_group, bool real) {
    const float share = args.mixture[leaf];
    for (int i = lane_of_group; i < args.leaf_width && real; i += kGroup)
      args.scaled[leaf * args.leaf_width + i] = share * args.hidden[leaf * args.leaf_width + i];
  });
}

template <int kGroup>
__global__ void scale_leaves_backward_kernel(ScaleLeavesBackward args) {
  for_grouped_rows<kGroup>(args.rows * args.leaves, [&](Index leaf, int lane_of_group, bool real) {
    const float share = args.mixture[leaf];
    float sum = 0;
    for (int i = lane_of_group; i < args.leaf_width && real; i += kGroup) {
      const Index place = leaf * args.leaf_width + i;
      const float d_scaled = args.d_scaled[place];
      sum = fmaf(args.hidden[place], d_scaled, sum);
      args.d_hidden[place] = share * d_scaled;
    }
    sum = group_sum<kGroup>(sum);
    if (real && lane_of_group == 0) args.d_mixture[leaf] += sum;
  });
}

}  // namespace

void tree_mixture(const Context& context, const TreeMixture& args) {
  with_group_for(num_leaves(args.depth), [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.rows), mixture_kernel<kGroup>, args);
  });
  sum_rows(context, args.rows, num_nodes(args.depth), EntropyOf{args}, args.entropy_sums);
}

// Groups have their T in the workspace, which is small where there are few groups: they take further rows in turn.
void tree_mixture_backward(const Context& context, const TreeMixtureBackward& args) {
  const Index nodes = num_nodes(args.depth);
  with_group_for(num_leaves(args.depth), [&]<int kGroup>() {
    constexpr Index kMostFloats = 4 << 20;
    LaunchShape shape = groups_for_each<kGroup>(args.rows);
    const Index of_block = shape.threads / kGroup * (nodes + 1), most_blocks = ceil_div(kMostFloats, of_block);
    if (shape.blocks > most_blocks) shape.blocks = most_blocks;
    launch(context, shape, mixture_backward_kernel<kGroup>, args, workspace<float>(context, shape.blocks * of_block));
  });
  sum_rows(context, args.rows, nodes, ValueOf{args.d_logits}, args.d_bias);
}

void scale_leaves(const Context& context, const ScaleLeaves& args) {
  with_group_for(args.leaf_width, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.rows * args.leaves), scale_leaves_kernel<kGroup>, args);
  });
}

void scale_leaves_backward(const Context& context, const ScaleLeavesBackward& args) {
  with_group_for(args.leaf_width, [&]<int kGroup>() {
    launch(context, groups_for_each<kGroup>(args.rows * args.leaves), scale_leaves_backward_kernel<kGroup>, args);
  });
}

}  // namespace switchyard::kernels::cuda
