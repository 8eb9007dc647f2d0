#include "model/layers.hpp"

#include <cmath>

#include "kernels/api/gemm.hpp"

namespace switchyard {

Linear Linear::add(ParameterTable& table, const std::string& weight_name, const std::string& bias_name, Index in,
                   Index out) {
  const Initializer uniform{Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(in))};
  Linear linear{in, out};
  linear.weight = table.add({weight_name, {out, in}, false, uniform});
  linear.bias = table.add({bias_name, {out}, false, uniform});
  return linear;
}

void Linear::forward(const Pass& pass, Index rows, const kernels::Operand& x, const kernels::NewOperand& y) const {
  kernels::gemm(pass.context, pass.by_weight(pass.linear(rows, in, out).forward(x, pass.parameters.value(weight), y)));
}

void Linear::backward(const Pass& pass, Index rows, const kernels::Operand& x, const kernels::Operand& d_y,
                      const kernels::NewOperand& d_x) const {
  const kernels::LinearProducts linear = pass.linear(rows, in, out);
  kernels::gemm(pass.context, pass.gradients->leaf_product(weight, linear.weight_gradient(d_y, x)));
  if (d_x.values || d_x.rounded)
    kernels::gemm(pass.context, pass.by_weight(linear.input_gradient(d_y, pass.parameters.value(weight), d_x)));
}

LayerNorm::LayerNorm(ParameterTable& table, const std::string& prefix, Index width) : width_(width) {
  gamma_ = table.add({prefix + ".gamma", {width}, false, {Initializer::Kind::kOnes}});
  beta_ = table.add({prefix + ".beta", {width}, false, {Initializer::Kind::kZeros}});
}

kernels::Operand LayerNorm::forward(const Pass& pass, Index rows, const float* x, Index x_stride,
                                    const InputForm& form) {
  rows_ = rows;
  x_ = x;
  x_stride_ = x_stride;
  mean_ = pass.arena.take<float>(rows);
  rstd_ = pass.arena.take<float>(rows);
  const kernels::NewOperand y = pass.operand(form.slots.in_order() ? rows : form.num_slots, width_, form.readers);
  kernels::LayerNorm norm;
  norm.rows = rows;
  norm.cols = width_;
  norm.x = x;
  norm.x_stride = x_stride;
  norm.gamma = pass.parameters.value(gamma_);
  norm.beta = pass.parameters.value(beta_);
  norm.y = y;
  norm.slots = form.slots;
  norm.mean = mean_;
  norm.rstd = rstd_;
  kernels::layernorm(pass.context, norm);
  return y;
}

void LayerNorm::backward(const Pass& pass, const InputGradient& d_y, float* d_x) const {
  const kernels::ArenaScope scope(pass.arena);
  const auto d_gamma = pass.gradients->leaf(gamma_, pass.arena);
  const auto d_beta = pass.gradients->leaf(beta_, pass.arena);
  kernels::LayerNormBackward norm;
  norm.rows = rows_;
  norm.cols = width_;
  norm.x = x_;
  norm.x_stride = x_stride_;
  norm.gamma = pass.parameters.value(gamma_);
  norm.mean = mean_;
  norm.rstd = rstd_;
  norm.d_y = d_y.rows;
  norm.slots = d_y.slots;
  norm.addend = d_y.addend;
  norm.d_x = d_x;
  norm.d_gamma = d_gamma.data;
  norm.d_beta = d_beta.data;
  kernels::layernorm_backward(pass.context, norm);
  pass.gradients->add(pass.context, d_gamma);
  pass.gradients->add(pass.context, d_beta);
}

}  // namespace switchyard
