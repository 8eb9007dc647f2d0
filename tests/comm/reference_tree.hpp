// The reduction tree, written down once more as it is defined: blocks summed left to right, block sums by the balanced
// binary tree.
#pragma once

#include <vector>

#include "core/types.hpp"

namespace switchyard::testing {

using Floats = std::vector<float>;

inline Floats sum_of(Floats left, const Floats& right) {
  for (std::size_t i = 0; i < left.size(); ++i) left[i] += right[i];
  return left;
}

inline Floats left_to_right(const std::vector<Floats>& leaves, std::size_t first, std::size_t end) {
  Floats sum = leaves[first];
  for (std::size_t leaf = first + 1; leaf < end; ++leaf) sum = sum_of(sum, leaves[leaf]);
  return sum;
}

// Leaves [first, end): a power of two of blocks.
inline Floats reference_tree(const std::vector<Floats>& leaves, std::size_t block, std::size_t first, std::size_t end) {
  if (end - first == block) return left_to_right(leaves, first, end);
  const std::size_t middle = first + (end - first) / 2;
  return sum_of(reference_tree(leaves, block, first, middle), reference_tree(leaves, block, middle, end));
}

inline Floats reference_tree(const std::vector<Floats>& leaves, Index block = 1) {
  return reference_tree(leaves, static_cast<std::size_t>(block), 0, leaves.size());
}

// The odd factor of a number of leaves: the block of its tree.
inline Index odd_factor(Index leaves) {
  while (leaves % 2 == 0) leaves /= 2;
  return leaves;
}

}  // namespace switchyard::testing
