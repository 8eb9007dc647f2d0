// The products of a learned gate (gate.hpp), which have as many columns as there are experts: often too few to fill the
// tiles of a product. Sums are fp32, in an order that the shape alone decides.
#pragma once

#include "core/context.hpp"
#include "core/types.hpp"
#include "kernels/api/gemm.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

// x is given rounded for at most so many experts: a GPU has kernels of its own for those, whose time is that of reading
// x. What more experts need is gemm()'s product in fp32, as is all of it on the CPU.
constexpr Index kMostExpertsOfRounded = 32;

// logits = x W^T
struct GateLogits {
  Index tokens = 0, width = 0, num_experts = 0;
  Operand x{};                    // (tokens, width)
  const float* weight = nullptr;  // (num_experts, width): W
  float* logits = nullptr;        // (tokens, num_experts)

  Gemm product() const { return LinearProducts{tokens, width, num_experts}.forward(x, weight, logits); }
};
void gate_logits(const Context& context, const GateLogits& args);

// d_x = d_logits W, d_W = d_logits^T x
struct GateLogitsBackward {
  Index tokens = 0, width = 0, num_experts = 0;
  Operand x{};                      // (tokens, width)
  const float* weight = nullptr;    // (num_experts, width): W
  const float* d_logits = nullptr;  // (tokens, num_experts)
  float* d_x = nullptr;             // (tokens, width), overwritten; null: not wanted
  bool adds_to_d_x = false;         // instead of that
  float* d_weight = nullptr;        // (num_experts, width), overwritten

  Gemm weight_product() const {
    return LinearProducts{tokens, width, num_experts}.weight_gradient(d_logits, x, d_weight);
  }
  Gemm input_product() const {
    Gemm product = LinearProducts{tokens, width, num_experts}.input_gradient(d_logits, weight, d_x);
    product.num_addends = adds_to_d_x ? 1 : 0;
    product.addends[0] = d_x;
    return product;
  }
};
void gate_logits_backward(const Context& context, const GateLogitsBackward& args);

}  // namespace switchyard::kernels
