// LayerNorm (Ba et al., 1607.06450): y = (x - mean) rstd gamma + beta over a row; rstd = 1 / sqrt(variance + epsilon).
#pragma once

#include "core/context.hpp"
#include "core/types.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

struct LayerNorm {
  Index rows = 0, cols = 0;
  const float* x = nullptr;  // (rows, cols), x_stride elements from row to row
  Index x_stride = 0;
  const float* gamma = nullptr;  // (cols)
  const float* beta = nullptr;   // (cols)
  float epsilon = 1e-5f;
  NewOperand y{};         // (rows, cols)
  float* mean = nullptr;  // (rows)
  float* rstd = nullptr;  // (rows)
};
void layernorm(const Context& context, const LayerNorm& args);

struct LayerNormBackward {
  Index rows = 0, cols = 0;
  const float* x = nullptr;  // (rows, cols), x_stride elements from row to row
  Index x_stride = 0;
  const float* gamma = nullptr;  // (cols)
  const float* mean = nullptr;   // (rows)
  const float* rstd = nullptr;   // (rows)
  Operand d_y{};                 // (rows, cols), dense
  float* d_x = nullptr;          // (rows, cols), x_stride from row to row: the gradient is ADDED to what is there
  float* d_gamma = nullptr;      // (cols), overwritten
  float* d_beta = nullptr;       // (cols), overwritten
};
void layernorm_backward(const Context& context, const LayerNormBackward& args);

}  // namespace switchyard::kernels
