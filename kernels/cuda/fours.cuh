// Four and eight neighbouring floats of a row: the units in which kernels read and write.
//
// Rows are read this way or that as their addresses allow, which must not show in the results. So where a product meets
// a sum, kernels say whether it is rounded first (__fmul_rn, __fadd_rn) or not (fmaf), and leave the compiler no
// choice.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/types.hpp"

namespace switchyard::kernels::cuda {

// A float4, uint4 or uint2 to global memory, in one instruction: of a plain assignment the compiler may make one for
// each member.
template <typename Vector>
__device__ inline void store_whole(void* to, const Vector& x) {
  __stwb(static_cast<Vector*>(to), x);
}

struct Four {
  float at[4];
};
struct Eight {
  float at[8];
};

// Whether element i of four lies in the row, of which `count` elements are left. kAligned: a row has all four or none.
template <bool kAligned>
__device__ inline bool is_inside(int i, int count) {
  return kAligned ? count > 0 : i < count;
}

// from[0 .. count - 1], zeros beyond. kAligned: one load of 16 bytes; the same values either way.
template <bool kAligned>
__device__ inline Four read_four(const float* from, int count) {
  Four four{};
  if constexpr (kAligned) {
    if (count <= 0) return four;
    const float4 values = *reinterpret_cast<const float4*>(from);
    four = {{values.x, values.y, values.z, values.w}};
  } else {
    for (int i = 0; i < 4; ++i)
      if (i < count) four.at[i] = from[i];
  }
  return four;
}

template <bool kAligned>
__device__ inline void write_four(float* to, const Four& four, int count) {
  if constexpr (kAligned) {
    if (count > 0) store_whole(to, make_float4(four.at[0], four.at[1], four.at[2], four.at[3]));
  } else {
    for (int i = 0; i < 4; ++i)
      if (i < count) to[i] = four.at[i];
  }
}

// Columns first .. first + 7 of rows that end `count` columns after `first`; first is a multiple of 8, so that these
// are the columns of one Philox block.
template <bool kAligned>
struct Octet {
  int first, count;

  __device__ Eight load(const float* row) const {
    const Four low = read_four<kAligned>(row + first, count), high = read_four<kAligned>(row + first + 4, count - 4);
    return {{low.at[0], low.at[1], low.at[2], low.at[3], high.at[0], high.at[1], high.at[2], high.at[3]}};
  }
  __device__ void store(float* row, const Eight& x) const {
    write_four<kAligned>(row + first, {{x.at[0], x.at[1], x.at[2], x.at[3]}}, count);
    write_four<kAligned>(row + first + 4, {{x.at[4], x.at[5], x.at[6], x.at[7]}}, count - 4);
  }
};

// Whether rows of `stride` elements may be read by fours from all of these arrays (null: not read).
template <typename... Elements>
inline bool are_aligned(Index stride, const Elements*... arrays) {
  return stride % 4 == 0 && ((reinterpret_cast<std::uintptr_t>(arrays) % 16 == 0) && ...);
}

}  // namespace switchyard::kernels::cuda
