// Products on tensor cores (compute capability 8.0 and up): a warp multiplies tiles of bf16, adding to fp32 sums. With
// g = lane / 4 and t = lane % 4, a pair being two neighbours in one register, the first in its lower half, a lane holds
//   of A (16, 16): pairs along a row, from (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) on
//   of B (16, 8):  pairs along a column, from (2t, g), (2t + 8, g) on
//   of C (16, 8):  (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".) So two tiles of C, side by side, become an A
// in the lane that has them. All lanes of the warp take part in all that is here, with the same `tile` and `stride`.
//
// Tiles are loaded from shared memory: rows `stride` elements apart, each 16-byte aligned. Where stride / 8 is odd, the
// eight rows that are read at once meet different banks.
#pragma once

#include "kernels/api/operand.hpp"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

struct FragmentA {
  unsigned pairs[4];
};
struct FragmentB {
  unsigned pairs[2];
};
struct FragmentC {
  float at[4];
};

// c += a b
__device__ inline void multiply_add(FragmentC& c, const FragmentA& a, const FragmentB& b) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.at[0]), "+f"(c.at[1]), "+f"(c.at[2]), "+f"(c.at[3])
      : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]), "r"(b.pairs[1]));
#else
  emulated::mma_m16n8k16(c.at, a.pairs, b.pairs);
#endif
}

// Four 8 x 8 matrices; lanes 8 i .. 8 i + 7 give the rows of the i-th. The lane's pair of each is (g, 2t), (g, 2t + 1),
// or, of its transpose, (2t, g), (2t + 1, g).
template <bool kTransposed>
__device__ inline void load_matrices(const Bf16* row, unsigned (&pairs)[4]) {
#ifdef __CUDACC__
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
#else
  emulated::load_matrices(row, kTransposed, pairs);
#endif
}

// Of a 16 x 16 tile the lane's row in the quarters top left, bottom left, top right, bottom right, or with the second
// and third exchanged.
__device__ inline const Bf16* row_by_columns(const Bf16* tile, int stride) {
  return tile + lane() % 16 * stride + lane() / 16 * 8;
}
__device__ inline const Bf16* row_by_rows(const Bf16* tile, int stride) {
  return tile + (lane() / 16 * 8 + lane() % 8) * stride + lane() / 8 % 2 * 8;
}

// A = tile
__device__ inline FragmentA load_a(const Bf16* tile, int stride) {
  FragmentA a;
  load_matrices<false>(row_by_columns(tile, stride), a.pairs);
  return a;
}

// A = tile^T
__device__ inline FragmentA load_a_transposed(const Bf16* tile, int stride) {
  FragmentA a;
  load_matrices<true>(row_by_rows(tile, stride), a.pairs);
  return a;
}

struct TwoB {
  FragmentB at[2];  // columns 0 .. 7 and 8 .. 15
};

// B = tile
__device__ inline TwoB load_b(const Bf16* tile, int stride) {
  unsigned pairs[4];
  load_matrices<true>(row_by_columns(tile, stride), pairs);
  return {{{{pairs[0], pairs[1]}}, {{pairs[2], pairs[3]}}}};
}

// B = tile^T
__device__ inline TwoB load_b_transposed(const Bf16* tile, int stride) {
  unsigned pairs[4];
  load_matrices<false>(row_by_rows(tile, stride), pairs);
  return {{{{pairs[0], pairs[1]}}, {{pairs[2], pairs[3]}}}};
}

// Two tiles of C, side by side, as an A.
__device__ inline FragmentA rounded_a(const FragmentC (&c)[2]) {
  return {{rounded_pair(c[0].at[0], c[0].at[1]), rounded_pair(c[0].at[2], c[0].at[3]),
           rounded_pair(c[1].at[0], c[1].at[1]), rounded_pair(c[1].at[2], c[1].at[3])}};
}

}  // namespace switchyard::kernels::cuda
