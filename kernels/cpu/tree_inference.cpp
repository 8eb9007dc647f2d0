// Evaluation: a row goes down one path and visits one leaf.
#include <algorithm>

#include "kernels/cpu/lane_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

inline float dot(Index width, const float* x, const float* w) {
  return sum_of_terms(0, width, [=](Index i, auto at) { return at(x + i) * at(w + i); });
}

// y += factor w
inline void add_scaled(Index size, float factor, const float* w, float* y) {
#pragma omp simd
  for (Index i = 0; i < size; ++i) y[i] += factor * w[i];
}

// Row by row: best where a leaf is too narrow to fill a product's tiles.
void visit_leaf(const LeafForward& leaf, Index row) {
  const float* x = leaf.x + row * leaf.width;
  float* y = leaf.y + row * leaf.out;
  std::copy_n(leaf.b2, leaf.out, y);
  for (Index i = 0; i < leaf.leaf_width; ++i) {
    const float u = dot(leaf.width, x, leaf.w1 + i * leaf.width) + leaf.b1[i];
    if (!(u <= 0)) add_scaled(leaf.out, u, leaf.w2 + i * leaf.out, y);
  }
}

}  // namespace

void tree_descent(const Context& context, const TreeDescent& args) {
  for_rows(context, args.rows, [&](Index row) {
    const float* x = args.x + row * args.width;
    Index node = 0;
    for (Index level = 0; level < args.depth; ++level)
      node = 2 * node + (dot(args.width, x, args.weight + node * args.width) + args.bias[node] >= 0 ? 2 : 1);
    args.leaf[row] = static_cast<std::int32_t>(node - num_nodes(args.depth));
  });
}

void leaf_forward(const Context& context, std::span<const LeafForward> leaves) {
  for (const LeafForward& leaf : leaves) for_rows(context, leaf.rows, [&](Index row) { visit_leaf(leaf, row); });
}

}  // namespace switchyard::kernels::cpu
