// A matrix product of the program's own, on arrays of its own, as training takes it: weights are packed already, and a
// gradient of weights is added to an earlier sum. What `switchyard bench` sets against oneDNN's, which has its operands
// in the layouts that it likes best and adds nothing.
#pragma once

#include <vector>

#include "app/onednn_product.hpp"
#include "core/context.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard {

class OwnProduct {
 public:
  OwnProduct(const Context& context, const ProductShape& s, kernels::Precision precision)
      : a_(context.device, s.m * s.k), b_(context.device, s.k * s.n), c_(context.device, s.m * s.n) {
    for (kernels::Array<float>* operand : {&a_, &b_}) {
      std::vector<float> values(static_cast<std::size_t>(operand->size()));
      fill_operand(values.data(), values.size() * sizeof(float));
      operand->upload(context, values);
    }
    c_.clear(context);
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
    if (s.transpose_a) {
      gemm_.num_addends = 1;
      gemm_.addends[0] = c_.data();
      return;
    }
    packed_b_ = kernels::Array<std::byte>(context.device, kernels::packed_b_bytes(context, gemm_));
    kernels::pack_b(context, gemm_, packed_b_.data());
    gemm_.packed_b = packed_b_.data();
  }
  void run(const Context& context) const { kernels::gemm(context, gemm_); }

 private:
  kernels::Array<float> a_, b_, c_;
  kernels::Array<std::byte> packed_b_;
  kernels::Gemm gemm_;
};

}  // namespace switchyard
