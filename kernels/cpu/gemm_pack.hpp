// Packing: from rows as they lie in an array to panels in the order in which tiles read them.
#pragma once

#include "kernels/cpu/gemm_units.hpp"

namespace switchyard::kernels::cpu {

// One operand of a product, of `extent` rows of A or columns of B by `depth`.
struct Operand {
  const float* data = nullptr;
  Index extent = 0, depth = 0;
  Index stride = 0;          // elements from row to row, as stored
  bool along_depth = false;  // a stored row runs along the depth; else across it, along the extent
};

constexpr Index kPackedGroup = 4;  // panel widths are multiples of it

template <typename Unit>
constexpr Index depth_units(Index depth) {
  return ceil_div(depth, Unit::kDepth);
}

// Packing is cut into independent parts: panels of an operand stored along its depth, or pieces of the depth of one
// stored across it, of which whole rows are read then.
template <typename Unit>
Index num_pack_parts(const Operand& operand, Index first, Index end, Index width);

// to: panels of `width` neighbours, one behind the other, each (depth_units(depth), width), over the operand's extents
// from `first` to `end`; zero in the padding of the last one.
template <typename Unit>
void pack_part(const Operand& operand, Index first, Index end, Index width, Index part, std::uint32_t* to);

}  // namespace switchyard::kernels::cpu
