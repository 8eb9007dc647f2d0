#pragma once

#include <array>
#include <compare>
#include <span>

#include "core/context.hpp"
#include "core/types.hpp"
#include "kernels/api/operand.hpp"
#include "kernels/api/reduce.hpp"

namespace switchyard::kernels {

// C = addends[n-1] + (... + (addends[0] + op(A) op(B))), or op(A) op(B) + bias, all row-major, fp32 in memory or
// rounded to bf16. op(A) is (m, k), op(B) is (k, n), C and the addends are (m, n) with rows ldc apart; C may be any of
// the addends. The bits of C depend on the shapes alone, never on the number of threads or on where the arrays lie.
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
  int num_addends = 0;
  std::array<const float*, kMaxTreeLevels> addends{};
  // (n), added to the sums of every row; null: none. Without addends. In fp32, but rounded to bf16 as C is.
  const float* bias = nullptr;
  Precision precision = Precision::kFp32;
  // A and B rounded already, for kBf16; null: read from a and b. Rows are rounded_cols() of those stored apart.
  const Bf16* a_rounded = nullptr;
  const Bf16* b_rounded = nullptr;
  // In place of c, which is null then: C rounded, rows rounded_cols(n) apart. Without addends, for kBf16, and only
  // where reads_rounded(). What lies in a row from n on is left as it is.
  Bf16* c_rounded = nullptr;
  const void* packed_b = nullptr;  // what pack_b() has made of B and the bias; B is not read then
};

// Independent products, run together: one for a dense layer, one an expert segment for a mixture. m, n or k may be 0.
void gemm(const Context& context, std::span<const Gemm> products);
inline void gemm(const Context& context, const Gemm& product) { gemm(context, std::span(&product, 1)); }

// What gemm() has read and written so far to bring operands into the form that the device multiplies. CPU: 0.
Index staged_bytes(Device device);

// B of a product, with its bias, in the form in which the device reads it best, for as many products as use it: only m,
// A and where C lies may differ. `to`: packed_b_bytes(product) bytes from allocate(); 0 bytes, so a null pointer, where
// B is best read as it is.
Index packed_b_bytes(const Context& context, const Gemm& product);
// What these bytes depend on, beside B and the precision. Those with a bias serve products without one, too.
struct PackedForm {
  bool transposed = false, with_bias = false;
  auto operator<=>(const PackedForm&) const = default;
};
PackedForm packed_form(const Context& context, const Gemm& product);
struct PackB {
  Gemm product;
  void* to = nullptr;
};
void pack_b(const Context& context, std::span<const PackB> packs);
inline void pack_b(const Context& context, const Gemm& product, void* to) {
  const PackB pack{product, to};
  pack_b(context, std::span(&pack, 1));
}

// The three products of a linear map y = x W^T: x (rows, in), y (rows, out), W (out, in).
struct LinearProducts {
  Index rows = 0, in = 0, out = 0;
  Precision precision = Precision::kFp32;

  // y = x W^T + bias (out); null: none
  Gemm forward(const Operand& x, const float* w, const NewOperand& y, const float* bias = nullptr) const {
    Gemm forward = product(false, true, {rows, out, in}, x, in, w, in, y);
    forward.bias = bias;
    return forward;
  }
  // d_x = d_y W
  Gemm input_gradient(const Operand& d_y, const float* w, const NewOperand& d_x) const {
    return product(false, false, {rows, in, out}, d_y, out, w, in, d_x);
  }
  // d_w = d_y^T x
  Gemm weight_gradient(const Operand& d_y, const Operand& x, float* d_w = nullptr) const {
    return product(true, false, {out, in, rows}, d_y, out, x, in, d_w);
  }

 private:
  struct Shape {
    Index m, n, k;
  };
  Gemm product(bool transpose_a, bool transpose_b, Shape shape, const Operand& a, Index lda, const Operand& b,
               Index ldb, const NewOperand& c) const {
    return {.transpose_a = transpose_a,
            .transpose_b = transpose_b,
            .m = shape.m,
            .n = shape.n,
            .k = shape.k,
            .a = a.values,
            .lda = lda,
            .b = b.values,
            .ldb = ldb,
            .c = c.values,
            .ldc = shape.n,
            .precision = precision,
            .a_rounded = a.rounded,
            .b_rounded = b.rounded,
            .c_rounded = c.rounded};
  }
};

}  // namespace switchyard::kernels
