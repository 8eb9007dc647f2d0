// Training: every row visits all leaves.
#include <algorithm>

#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr float kSaturated = 1e-6f;

inline float entropy(float s) {
  const float p = s < kSaturated ? kSaturated : s > 1 - kSaturated ? 1 - kSaturated : s;
  return -(p * vector_log(p) + (1 - p) * vector_log(1 - p));
}

// dH/dz = -z s (1 - s)
inline float entropy_slope(float z, float s) { return s < kSaturated || s > 1 - kSaturated ? 0 : -z * s * (1 - s); }

// signs[i] = 1 - 2t
template <typename Args>
void draw_signs(const Args& args, Index row, Index nodes, float* signs) {
  for (Index i = 0; i < nodes; i += 4) {
    const auto words =
        random_words(args.key, args.first_row + static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(i / 4));
    for (Index j = i; j < std::min(nodes, i + 4); ++j)
      signs[j] = to_unit_float(words[static_cast<std::size_t>(j - i)]) < args.leak ? -1.0f : 1.0f;
  }
}

// below[j] of a level from its own shares and choices: room for all leaves, filled from the root down.
void spread(Index depth, const float* choices, float* shares) {
  shares[0] = 1;
  for (Index level = 0; level < depth; ++level) {
    const Index count = Index{1} << level;
    const float* c = choices + count - 1;
    for (Index j = count; j-- > 0;) {
      const float right = shares[j] * c[j];
      shares[2 * j] = shares[j] - right;
      shares[2 * j + 1] = right;
    }
  }
}

}  // namespace

void tree_mixture(const Context& context, const TreeMixture& args) {
  const Index nodes = num_nodes(args.depth), leaves = num_leaves(args.depth), num_blocks = num_row_blocks(args.rows);
  float* partial_sums = zeroed_partial_sums(num_blocks, nodes);
  for_row_blocks(context, args.rows, [&](Index block_idx, Index first_row, Index end_row) {
    thread_local Scratch<float> scratch;
    float* signs = scratch.get(nodes);
    float* sums = partial_sums + block_idx * nodes;
    for (Index row = first_row; row < end_row; ++row) {
      const float* logits = args.logits + row * nodes;
      float* choices = args.choices + row * nodes;
#pragma omp simd
      for (Index i = 0; i < nodes; ++i) {
        const float z = logits[i] + args.bias[i], s = sigmoid(z);
        sums[i] += entropy(s);
        choices[i] = s;
      }
      if (args.hard)
        for (Index i = 0; i < nodes; ++i) choices[i] = logits[i] + args.bias[i] >= 0 ? 1.0f : 0.0f;
      if (args.leak > 0) {
        draw_signs(args, row, nodes, signs);
        for (Index i = 0; i < nodes; ++i) choices[i] = signs[i] < 0 ? 1 - choices[i] : choices[i];
      }
      spread(args.depth, choices, args.mixture + row * leaves);
    }
  });
  add_partial_sums(num_blocks, nodes, partial_sums, nodes, args.entropy_sums);
}

// With T(node) = c T(right) + (1 - c) T(left) from the leaves' d_mixture upwards: d_c = share(node) (T(right) -
// T(left)).
void tree_mixture_backward(const Context& context, const TreeMixtureBackward& args) {
  const Index nodes = num_nodes(args.depth), leaves = num_leaves(args.depth), num_blocks = num_row_blocks(args.rows);
  float* partial_sums = zeroed_partial_sums(num_blocks, nodes);
  for_row_blocks(context, args.rows, [&](Index block_idx, Index first_row, Index end_row) {
    thread_local Scratch<float> scratch;
    float* room = scratch.get(3 * nodes + leaves);
    float *signs = room, *shares = signs + nodes, *d_choices = shares + nodes, *below = d_choices + nodes;
    std::fill_n(signs, nodes, 1.0f);
    float* sums = partial_sums + block_idx * nodes;
    for (Index row = first_row; row < end_row; ++row) {
      const float* logits = args.logits + row * nodes;
      const float* choices = args.choices + row * nodes;
      float* d_logits = args.d_logits + row * nodes;
      if (args.leak > 0) draw_signs(args, row, nodes, signs);
      if (nodes > 0) shares[0] = 1;
      for (Index i = 0; 2 * i + 2 < nodes; ++i) {
        shares[2 * i + 2] = shares[i] * choices[i];
        shares[2 * i + 1] = shares[i] - shares[2 * i + 2];
      }
      std::copy_n(args.d_mixture + row * leaves, leaves, below);
      for (Index level = args.depth; level-- > 0;) {
        const Index count = Index{1} << level, first = count - 1;
        for (Index j = 0; j < count; ++j) {
          const float left = below[2 * j], difference = below[2 * j + 1] - left;
          d_choices[first + j] = shares[first + j] * difference;
          below[j] = left + choices[first + j] * difference;
        }
      }
#pragma omp simd
      for (Index i = 0; i < nodes; ++i) {
        const float z = logits[i] + args.bias[i], s = sigmoid(z);
        const float d = d_choices[i] * signs[i] * s * (1 - s) + args.entropy_scale * entropy_slope(z, s);
        d_logits[i] = d;
        sums[i] += d;
      }
    }
  });
  add_partial_sums(num_blocks, nodes, partial_sums, nodes, args.d_bias);
}

void scale_leaves(const Context& context, const ScaleLeaves& args) {
  const Index width = args.leaf_width;
  for_rows(context, args.rows, [&](Index row) {
    for (Index leaf = row * args.leaves; leaf < (row + 1) * args.leaves; ++leaf) {
      const float share = args.mixture[leaf];
#pragma omp simd
      for (Index i = leaf * width; i < (leaf + 1) * width; ++i) args.scaled[i] = share * args.hidden[i];
    }
  });
}

void scale_leaves_backward(const Context& context, const ScaleLeavesBackward& args) {
  const Index width = args.leaf_width;
  for_rows(context, args.rows, [&](Index row) {
    for (Index leaf = row * args.leaves; leaf < (row + 1) * args.leaves; ++leaf) {
      const float share = args.mixture[leaf];
      const float* hidden = args.hidden + leaf * width;
      const float* d_scaled = args.d_scaled + leaf * width;
      args.d_mixture[leaf] +=
          sum_of_terms(0, width, [=](Index i, auto at) { return at(hidden + i) * at(d_scaled + i); });
#pragma omp simd
      for (Index i = 0; i < width; ++i) args.d_hidden[leaf * width + i] = share * d_scaled[i];
    }
  });
}

}  // namespace switchyard::kernels::cpu
