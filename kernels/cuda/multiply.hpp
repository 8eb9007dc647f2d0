// The products themselves: cuBLASLt, or, in the emulated build, a plain loop.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>

#include "core/context.hpp"
#include "core/types.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels::cuda {

// C[s] = op(A[s]) op(B[s]) for s < batch, or addend + op(A) op(B), or op(A) op(B) + bias, for a batch of one. All
// row-major; A[s], B[s], C[s] lie stride elements apart. A and B: 16-byte aligned, rows a multiple of 16 bytes apart,
// and so is C where it is rounded. C, addend in fp32: 16-byte aligned where ldc is a multiple of 4. The bias: 16-byte
// aligned.
struct Product {
  bool transpose_a = false, transpose_b = false;
  bool bf16 = false;  // what A and B hold; otherwise fp32
  bool tf32 = false;  // of fp32: 10 of the 23 bits after the point are enough
  Index m = 0, n = 0, k = 0, batch = 1;
  const void* a = nullptr;
  const void* b = nullptr;
  float* c = nullptr;
  Bf16* c_rounded = nullptr;      // in place of c: rounded to the nearest, ties to even
  const float* addend = nullptr;  // may be c; none with c_rounded
  const void* bias = nullptr;     // (n), of the type of C, added to every row; none with an addend
  Index lda = 0, ldb = 0, ldc = 0;
  Index stride_a = 0, stride_b = 0, stride_c = 0;
};

// The product whose shape an algorithm is chosen by. Where a gate chooses experts, every step has hundreds of new
// numbers of rows, and to ask for each is slow for the host: rows are rounded up to steps of 128, of an eighth where
// they are few, which follows from the shape alone. They are A's rows as it is stored, which are tokens in each of the
// three products of a linear map: m, or, for a weight's gradient, k. A batch's depth is in steps already (slices_of()),
// and strides would not fit; nor would rows of B, where k is also their length.
inline Product with_rows_in_steps(Product p) {
  if (p.batch > 1 || (p.transpose_a && p.transpose_b)) return p;
  Index& rows = p.transpose_a ? p.k : p.m;
  const Index eighth = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(rows))) / 8;
  rows = round_up(rows, std::clamp<Index>(eighth, 1, 128));
  return p;
}

// Of every product, whatever its shape: an algorithm's choice depends on how much there is.
constexpr Index kMultiplyWorkspaceBytes = Index{32} << 20;

void multiply(const Context& context, const Product& product, void* workspace);

// What multiplies, with its version.
std::string product_library();

}  // namespace switchyard::kernels::cuda
