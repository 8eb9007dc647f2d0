#pragma once

#include <span>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// What operands are rounded to before they are multiplied; sums are fp32 in any case.
enum class Precision { kFp32, kBf16 };

// C = op(A) op(B) + beta C, all row-major, fp32 in memory. op(A) is (m, k), op(B) is (k, n), C is (m, n).
// beta is 0 (C is only written) or 1. The bits of C depend on the shapes alone, never on the number of threads.
struct Gemm {
  bool transpose_a = false;  // A is stored (k, m)
  bool transpose_b = false;  // B is stored (n, k)
  Index m = 0, n = 0, k = 0;
  const float* a = nullptr;
  Index lda = 0;  // elements from row to row, as stored
  const float* b = nullptr;
  Index ldb = 0;
  float* c = nullptr;
  Index ldc = 0;
  float beta = 0;
  Precision precision = Precision::kFp32;
};

// Independent products, run together: one for a dense layer, one an expert segment for a mixture. m, n or k may be 0.
void gemm(const Context& context, std::span<const Gemm> products);
inline void gemm(const Context& context, const Gemm& product) { gemm(context, std::span(&product, 1)); }

}  // namespace switchyard::kernels
