// A matrix product of the program's own, on arrays of its own, as training takes it: what `switchyard bench` sets
// against oneDNN's.
#pragma once

#include <vector>

#include "app/onednn_product.hpp"
#include "core/context.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

class OwnProduct {
 public:
  OwnProduct(const Context& context, const ProductShape& s, kernels::Precision precision)
      : a_(size(s.m * s.k)), b_(size(s.k * s.n)), c_(size(s.m * s.n)) {
    for (std::vector<float>* operand : {&a_, &b_}) fill_operand(operand->data(), operand->size() * sizeof(float));
    gemm_ = {.transpose_a = s.transpose_a,
             .transpose_b = s.transpose_b,
             .m = s.m,
             .n = s.n,
             .k = s.k,
             .a = a_.data(),
             .lda = s.transpose_a ? s.m : s.k,
             .b = b_.data(),
             .ldb = s.transpose_b ? s.k : s.n,
             .c = c_.data(),
             .ldc = s.n,
             .precision = precision};
    // In products that are not transposed, B is a weight: packed once for all microbatches of a step.
    if (s.transpose_a) return;
    packed_b_ = kernels::Array<std::byte>(context.device, kernels::packed_b_bytes(context, gemm_));
    kernels::pack_b(context, gemm_, packed_b_.data());
    gemm_.packed_b = packed_b_.data();
  }
  void run(const Context& context) const { kernels::gemm(context, gemm_); }

 private:
  static std::size_t size(Index elements) { return static_cast<std::size_t>(elements); }

  std::vector<float> a_, b_, c_;
  kernels::Array<std::byte> packed_b_;
  kernels::Gemm gemm_;
};

}  // namespace switchyard
