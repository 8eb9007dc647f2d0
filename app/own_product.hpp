// A matrix product of the program's own, on arrays of its own, as training takes it: weights are packed already, other
// operands come as the kernel before hands them on, results are as the next one takes them, and a gradient of weights
// is added to an earlier sum. What `switchyard bench` sets against oneDNN's, which has its operands in the layouts that
// it likes best and adds nothing.
#pragma once

#include "app/operands.hpp"
#include "core/context.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/gemm.hpp"
#include "model/products.hpp"

namespace switchyard {

class OwnProduct {
 public:
  OwnProduct(const Context& context, const ProductShape& s, kernels::Precision precision)
      : arrays_(context, precision) {
    const bool is_weight_gradient = s.transpose_a;
    const kernels::Operand a = s.transpose_a ? arrays_.read_operand(s.k, s.m) : arrays_.read_operand(s.m, s.k);
    const kernels::Operand b = is_weight_gradient ? arrays_.read_operand(s.k, s.n) : arrays_.read(s.k * s.n);
    const kernels::NewOperand c =
        is_weight_gradient ? kernels::NewOperand{arrays_.update(s.m * s.n)} : arrays_.write_operand(s.m, s.n);
    gemm_ = {.transpose_a = s.transpose_a,
             .transpose_b = s.transpose_b,
             .m = s.m,
             .n = s.n,
             .k = s.k,
             .a = a.values,
             .lda = s.transpose_a ? s.m : s.k,
             .b = b.values,
             .ldb = s.transpose_b ? s.k : s.n,
             .c = c.values,
             .ldc = s.n,
             .precision = precision,
             .a_rounded = a.rounded,
             .b_rounded = b.rounded,
             .c_rounded = c.rounded};
    if (is_weight_gradient) {
      gemm_.num_addends = 1;
      gemm_.addends[0] = c.values;
      return;
    }
    auto* packed = arrays_.write<std::byte>(kernels::packed_b_bytes(context, gemm_));
    kernels::pack_b(context, gemm_, packed);
    gemm_.packed_b = packed;
  }

  void run(const Context& context) const { kernels::gemm(context, gemm_); }
  // Of one on a GPU: several are given to it one after the other, so that their launches do not show.
  double seconds_on_gpu(const Context& context) const {
    constexpr int kTimes = 20;
    const auto run_all = [&] {
      for (int i = 0; i < kTimes; ++i) run(context);
    };
    return kernels::seconds_of(context, run_all) / kTimes;
  }

 private:
  Operands arrays_;
  kernels::Gemm gemm_;
};

}  // namespace switchyard
