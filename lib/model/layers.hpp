// The two layers that everything else is made of: a linear map and LayerNorm, over the rows of one microbatch.
#pragma once

#include "kernels/api/layernorm.hpp"
#include "model/pass.hpp"

namespace switchyard {

// y = x W^T + bias, W (out, in), bias (out). Starts as PyTorch's nn.Linear: both uniform over +-1 / sqrt(in). The bias
// is added, and its gradient taken, by whichever pass reads y next.
struct Linear {
  Index in = 0, out = 0;
  ParameterId weight = -1, bias = -1;

  static Linear add(ParameterTable& table, const std::string& weight_name, const std::string& bias_name, Index in,
                    Index out);

  // y = x W^T: (rows, in) -> (rows, out)
  void forward(const Pass& pass, Index rows, const kernels::Operand& x, const kernels::NewOperand& y) const;
  // d_x = d_y W, where there is a d_x; the weight's gradient d_y^T x goes to pass.gradients.
  void backward(const Pass& pass, Index rows, const kernels::Operand& x, const kernels::Operand& d_y,
                const kernels::NewOperand& d_x) const;
};

// How a layer's input, one row for each token, is to be written.
struct InputForm {
  kernels::Readers readers = kernels::Readers::kProducts;
  kernels::SlotsOfRows slots{};
  Index num_slots = 0;  // where rows are not in order
};

// The gradient of such an input, of row r: what lies in its slots, in order, and then the addend's row.
struct InputGradient {
  kernels::Operand rows{};  // (rows, width), or (slots, width)
  kernels::SlotsOfRows slots{};
  const float* addend = nullptr;  // (rows, width); null: none
};

// Keeps its statistics between forward and backward of a microbatch.
class LayerNorm {
 public:
  LayerNorm(ParameterTable& table, const std::string& prefix, Index width);

  // x: (rows, width), x_stride from row to row -> y: (rows, width), or (slots, width), from the arena.
  kernels::Operand forward(const Pass& pass, Index rows, const float* x, Index x_stride, const InputForm& form = {});
  // Adds to d_x, laid out as x.
  void backward(const Pass& pass, const InputGradient& d_y, float* d_x) const;

 private:
  Index width_;
  ParameterId gamma_, beta_;
  Index rows_ = 0, x_stride_ = 0;
  const float* x_ = nullptr;
  float* mean_ = nullptr;  // (rows)
  float* rstd_ = nullptr;  // (rows)
};

}  // namespace switchyard
