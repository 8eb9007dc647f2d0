#include "kernels/cpu/gemm_pack.hpp"

#include <algorithm>

namespace switchyard::kernels::cpu {

namespace {

// Four rows of kUnitLanes units each become kUnitLanes groups of four, `width` apart, of which num_units are written.
inline void transpose_group(const Units (&rows)[kPackedGroup], Index num_units, Index width, std::uint32_t* to) {
  typedef std::uint32_t Group __attribute__((vector_size(sizeof(std::uint32_t) * kPackedGroup)));
  typedef Group GroupAnywhere __attribute__((may_alias, aligned(sizeof(std::uint32_t))));
  // Within each quarter of a vector: interleave the lower two, and the upper two, of two vectors' four units. Done to
  // rows 0 with 2 and 1 with 3, and then to the results, it leaves the four rows' units of one column side by side.
#ifdef __AVX512F__
  constexpr Units kLow = {0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29};
#else
  constexpr Units kLow = {0, 8, 1, 9, 4, 12, 5, 13};
#endif
  constexpr Units kHigh = kLow + 2;
  const Units low02 = __builtin_shuffle(rows[0], rows[2], kLow), high02 = __builtin_shuffle(rows[0], rows[2], kHigh);
  const Units low13 = __builtin_shuffle(rows[1], rows[3], kLow), high13 = __builtin_shuffle(rows[1], rows[3], kHigh);
  const Units columns[kPackedGroup] = {__builtin_shuffle(low02, low13, kLow), __builtin_shuffle(low02, low13, kHigh),
                                       __builtin_shuffle(high02, high13, kLow),
                                       __builtin_shuffle(high02, high13, kHigh)};
  const auto write = [&](Index unit) {
    const auto* quarters = reinterpret_cast<const GroupAnywhere*>(&columns[unit % kPackedGroup]);
    *reinterpret_cast<GroupAnywhere*>(to + unit * width) = quarters[unit / kPackedGroup];
  };
  if (num_units >= kUnitLanes) {
#pragma GCC unroll 16
    for (Index unit = 0; unit < kUnitLanes; ++unit) write(unit);
  } else {
    for (Index unit = 0; unit < num_units; ++unit) write(unit);
  }
}

// One panel of an operand stored along its depth.
template <typename Unit>
void pack_along(const Operand& operand, Index first, Index end, Index width, std::uint32_t* to) {
  const Index num_units = depth_units<Unit>(operand.depth);
  for (Index group = 0; group < width; group += kPackedGroup) {
    const float* from = operand.data + (first + group) * operand.stride;
    const Index num_rows = end - first - group;
    for (Index unit = 0; unit < num_units; unit += kUnitLanes) {
      const Index depth = unit * Unit::kDepth;
      Units rows[kPackedGroup] = {};
#pragma GCC unroll 4
      for (int row = 0; row < kPackedGroup; ++row)
        if (row < num_rows) {
          rows[row] = Unit::load_along(from + row * operand.stride + depth, operand.depth - depth);
          const float* next = from + (kPackedGroup + row) * operand.stride + depth;
          for (Index line = 0; line < Unit::kDepth; ++line) __builtin_prefetch(next + line * kUnitLanes);
        }
      transpose_group(rows, num_units - unit, width, to + unit * width + group);
    }
  }
}

// Few enough for the rows that they come from to stay in the caches while panel after panel is written.
constexpr Index kUnitsPerPart = 2;

// Depth units from first_unit to end_unit of all panels of an operand stored across its depth.
template <typename Unit>
void pack_across(const Operand& operand, Index first, Index end, Index width, Index first_unit, Index end_unit,
                 std::uint32_t* to) {
  const Index num_units = depth_units<Unit>(operand.depth);
  const Index ahead = kUnitsPerPart * Unit::kDepth * operand.stride;
  for (Index panel = first; panel < end; panel += width)
    for (Index unit = first_unit; unit < end_unit; ++unit) {
      const Index depth = unit * Unit::kDepth;
      const float* from = operand.data + depth * operand.stride + panel;
      std::uint32_t* row = to + (panel - first) * num_units + unit * width;
      for (Index i = 0; i < width; i += kUnitLanes) __builtin_prefetch(from + i + ahead);
      for (Index i = 0; i < width; i += kUnitLanes)
        store_some(row + i, Unit::load_across(from + i, operand.stride, end - panel - i, operand.depth - depth),
                   width - i);
    }
}

}  // namespace

template <typename Unit>
Index num_pack_parts(const Operand& operand, Index first, Index end, Index width) {
  return operand.along_depth ? ceil_div(end - first, width) : ceil_div(depth_units<Unit>(operand.depth), kUnitsPerPart);
}

template <typename Unit>
void pack_part(const Operand& operand, Index first, Index end, Index width, Index part, std::uint32_t* to) {
  const Index num_units = depth_units<Unit>(operand.depth);
  if (operand.along_depth)
    pack_along<Unit>(operand, first + part * width, end, width, to + part * width * num_units);
  else
    pack_across<Unit>(operand, first, end, width, part * kUnitsPerPart, std::min((part + 1) * kUnitsPerPart, num_units),
                      to);
}

template Index num_pack_parts<Fp32Unit>(const Operand&, Index, Index, Index);
template Index num_pack_parts<Bf16Unit>(const Operand&, Index, Index, Index);
template void pack_part<Fp32Unit>(const Operand&, Index, Index, Index, Index, std::uint32_t*);
template void pack_part<Bf16Unit>(const Operand&, Index, Index, Index, Index, std::uint32_t*);

}  // namespace switchyard::kernels::cpu
