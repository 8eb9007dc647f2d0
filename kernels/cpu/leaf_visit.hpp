// Some rows of a matrix at one leaf of a tree.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/api/tree.hpp"

namespace switchyard::kernels::cpu {

// y[r] = residual[r] + max(x[r] w1^T + b1, 0) w2 + b2 for each r of rows; shapes as in LeafForward, whose own number of
// rows does not count. A row's bits depend on it alone. residual: null: none.
void visit_leaf(const LeafForward& leaf, std::span<const std::int32_t> rows, const float* residual);

}  // namespace switchyard::kernels::cpu
