// LayerNorm (Ba et al., 1607.06450): y = (x - mean) rstd gamma + beta over a row; rstd = 1 / sqrt(variance + epsilon).
#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "core/host_device.hpp"
#include "core/types.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

// Where what belongs to a row lies: at the row's own place, or in slots of a route plan (routing.hpp).
struct SlotsOfRows {
  Index top_k = 1;
  const std::int32_t* slot_of_assignment = nullptr;  // (rows * top_k); -1: none; null: the row's own place, top_k = 1

  bool in_order() const { return !slot_of_assignment; }
  SWITCHYARD_HOST_DEVICE Index slot(Index row, Index k) const {
    return slot_of_assignment ? slot_of_assignment[row * top_k + k] : row;
  }
};

struct LayerNorm {
  Index rows = 0, cols = 0;
  const float* x = nullptr;  // (rows, cols), x_stride elements from row to row
  Index x_stride = 0;
  const float* gamma = nullptr;  // (cols)
  const float* beta = nullptr;   // (cols)
  float epsilon = 1e-5f;
  NewOperand y{};         // (rows, cols), or (slots, cols): a row is written to each of its slots
  SlotsOfRows slots{};    // of y
  float* mean = nullptr;  // (rows)
  float* rstd = nullptr;  // (rows)
};
void layernorm(const Context& context, const LayerNorm& args);

struct LayerNormBackward {
  Index rows = 0, cols = 0;
  const float* x = nullptr;  // (rows, cols), x_stride elements from row to row
  Index x_stride = 0;
  const float* gamma = nullptr;   // (cols)
  const float* mean = nullptr;    // (rows)
  const float* rstd = nullptr;    // (rows)
  Operand d_y{};                  // (rows, cols), dense, or (slots, cols): a row's is the sum over its slots, in order
  SlotsOfRows slots{};            // of d_y
  const float* addend = nullptr;  // (rows, cols), dense: added to a row's d_y, last; null: none
  float* d_x = nullptr;           // (rows, cols), x_stride from row to row: the gradient is ADDED to what is there
  float* d_gamma = nullptr;       // (cols), overwritten
  float* d_beta = nullptr;        // (cols), overwritten
};
void layernorm_backward(const Context& context, const LayerNormBackward& args);

}  // namespace switchyard::kernels
