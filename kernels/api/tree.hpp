// Fast feedforward layers (Belcak & Wattenhofer, 2308.14711): a binary tree of depth d whose nodes choose among leaves,
// which are small feed-forward networks. Node (m, j), m = 0 .. d-1, j = 0 .. 2^m - 1, has the place 2^m - 1 + j; its
// children are (m+1, 2j), to the left, and (m+1, 2j+1), to the right; those of the last level are the leaves 0 ..
// 2^d-1.
#pragma once

#include <cstdint>
#include <span>

#include "core/context.hpp"
#include "core/random.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

constexpr Index num_leaves(Index depth) { return Index{1} << depth; }
constexpr Index num_nodes(Index depth) { return num_leaves(depth) - 1; }

// How a row falls through the tree in training, with z = logits + bias and s = sigmoid(z) of each node:
//   c = |t - s|, the share that goes to the right; t ~ Bernoulli(leak) swaps the node's children for the row
//   c = 1 where z >= 0, else 0, with `hard`
//   mixture[leaf] = product over its path of c where it turns right, 1 - c where it turns left
// Node i of row r draws t = 1 where to_unit_float(word i % 4 of (key, first_row + r, block i / 4)) < leak.
struct TreeMixture {
  Index rows = 0, depth = 0;
  const float* logits = nullptr;  // (rows, nodes)
  const float* bias = nullptr;    // (nodes)
  bool hard = false;
  float leak = 0;
  RandomKey key{};
  std::uint32_t first_row = 0;
  float* choices = nullptr;       // (rows, nodes) c
  float* mixture = nullptr;       // (rows, leaves)
  float* entropy_sums = nullptr;  // (nodes) sum over rows of H(s), nats; see below
};
void tree_mixture(const Context& context, const TreeMixture& args);

// H(s) = -p ln p - (1 - p) ln(1 - p), p = s within [1e-6, 1 - 1e-6], whose gradient to z is
// -z s (1 - s) there and 0 outside.
//   d_logits = d_c (1 - 2t) s (1 - s) + entropy_scale dH/dz
struct TreeMixtureBackward {
  Index rows = 0, depth = 0;
  const float* logits = nullptr;   // (rows, nodes)
  const float* bias = nullptr;     // (nodes)
  const float* choices = nullptr;  // (rows, nodes)
  float leak = 0;
  RandomKey key{};
  std::uint32_t first_row = 0;
  float entropy_scale = 0;
  const float* d_mixture = nullptr;  // (rows, leaves)
  float* d_logits = nullptr;         // (rows, nodes); may be logits
  float* d_bias = nullptr;           // (nodes), overwritten
};
void tree_mixture_backward(const Context& context, const TreeMixtureBackward& args);

// scaled[r, leaf, i] = mixture[r, leaf] hidden[r, leaf, i]
struct ScaleLeaves {
  Index rows = 0, leaves = 0, leaf_width = 0;
  const float* mixture = nullptr;  // (rows, leaves)
  const float* hidden = nullptr;   // (rows, leaves, leaf_width)
  float* scaled = nullptr;         // (rows, leaves, leaf_width)
};
void scale_leaves(const Context& context, const ScaleLeaves& args);

// d_hidden = mixture d_scaled;  d_mixture[r, leaf] += sum over i of hidden d_scaled
struct ScaleLeavesBackward {
  Index rows = 0, leaves = 0, leaf_width = 0;
  const float* mixture = nullptr;   // (rows, leaves)
  const float* hidden = nullptr;    // (rows, leaves, leaf_width)
  const float* d_scaled = nullptr;  // (rows, leaves, leaf_width)
  float* d_hidden = nullptr;        // (rows, leaves, leaf_width); may be d_scaled
  float* d_mixture = nullptr;       // (rows, leaves), added to
};
void scale_leaves_backward(const Context& context, const ScaleLeavesBackward& args);

// Evaluation. What a row comes to depends, bit by bit, on that row alone, whether its descent and its leaf are asked
// for apart or together.

// leaf[r] = where row r comes out, turning right at a node where x w^T + bias >= 0.
struct TreeDescent {
  Index rows = 0, width = 0, depth = 0;
  const float* x = nullptr;       // (rows, width)
  const float* weight = nullptr;  // (nodes, width)
  const float* bias = nullptr;    // (nodes)
  std::int32_t* leaf = nullptr;   // (rows)
};
void tree_descent(const Context& context, const TreeDescent& args);

// Rows that came to one leaf: y = max(x w1^T + b1, 0) w2 + b2.
struct LeafForward {
  Index rows = 0, width = 0, leaf_width = 0, out = 0;
  const float* x = nullptr;   // (rows, width)
  const float* w1 = nullptr;  // (leaf_width, width)
  const float* b1 = nullptr;  // (leaf_width)
  const float* w2 = nullptr;  // (leaf_width, out)
  const float* b2 = nullptr;  // (out)
  float* y = nullptr;         // (rows, out)
};
void leaf_forward(const Context& context, std::span<const LeafForward> leaves);

// Both, where all leaves are at hand: y = residual + leaf(x), a missing residual being 0. Nothing is sorted or copied
// but a list of rows.
struct TreeForward {
  Index rows = 0, width = 0, depth = 0, leaf_width = 0, out = 0;
  const float* x = nullptr;         // (rows, width)
  const float* weight = nullptr;    // (nodes, width)
  const float* bias = nullptr;      // (nodes)
  const float* w1 = nullptr;        // (leaves, leaf_width, width)
  const float* b1 = nullptr;        // (leaves, leaf_width)
  const float* w2 = nullptr;        // (leaves, leaf_width, out)
  const float* b2 = nullptr;        // (leaves, out)
  const float* residual = nullptr;  // (rows, out); null: none
  float* y = nullptr;               // (rows, out)
};
void tree_forward(const Context& context, const TreeForward& args);

}  // namespace switchyard::kernels
