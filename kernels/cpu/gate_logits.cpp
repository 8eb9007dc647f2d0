#include "kernels/api/gate_logits.hpp"

#include "kernels/cpu/operations.hpp"

namespace switchyard::kernels::cpu {

void gate_logits(const Context& context, const GateLogits& args) {
  const Gemm product = args.product();
  gemm(context, {&product, 1});
}

void gate_logits_backward(const Context& context, const GateLogitsBackward& args) {
  const Gemm products[] = {args.weight_product(), args.input_product()};
  gemm(context, {products, args.d_x ? std::size_t{2} : std::size_t{1}});
}

}  // namespace switchyard::kernels::cpu
