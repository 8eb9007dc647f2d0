// A matrix product of the program's own, on arrays of its own: what `switchyard bench` sets against oneDNN's.
#pragma once

#include <vector>

#include "app/onednn_product.hpp"
#include "core/context.hpp"

namespace switchyard {

class OwnProduct {
 public:
  OwnProduct(const ProductShape& s, kernels::Precision precision)
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
  }
  void run(const Context& context) const { kernels::gemm(context, gemm_); }

 private:
  static std::size_t size(Index elements) { return static_cast<std::size_t>(elements); }

  std::vector<float> a_, b_, c_;
  kernels::Gemm gemm_;
};

}  // namespace switchyard
