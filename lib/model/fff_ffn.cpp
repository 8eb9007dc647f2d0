// Training: every token visits all leaves.
#include "model/fff_ffn.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard {

FffFfn::FffFfn(const FfnOptions& options, ParameterTable& table)
    : options_(options),
      nodes_(kernels::num_nodes(options.tree.depth)),
      leaves_(kernels::num_leaves(options.tree.depth)),
      node_(Linear::add(table, options.prefix + ".tree.weight", options.prefix + ".tree.bias", options.width, nodes_)) {
  for (const ParameterId id : {node_.weight, node_.bias}) {
    table.set_rows_met(id, options.tree.depth);
    table.set_trained(id, !options.tree.hard);
  }
  const auto add = [&](const char* name, const std::vector<Index>& shape, Index in) {
    weights_.add(table.add({options.prefix + ".leaves." + name,
                            shape,
                            true,
                            {Initializer::Kind::kUniform, 1 / std::sqrt(static_cast<double>(in))}}));
  };
  const Index leaf = options.tree.leaf;
  add("w1", {leaves_, leaf, options.width}, options.width);
  add("b1", {leaves_, leaf}, options.width);
  add("w2", {leaves_, leaf, options.out}, leaf);
  add("b2", {leaves_, options.out}, leaf);
}

float* FffFfn::forward_all_leaves(const Pass& pass, AuxiliaryLosses* losses) {
  weights_.gather(pass);
  nodes_forward(pass);
  losses->hardening += options_.tree.hardening * mean_entropy(pass);
  float* y = leaves_forward(pass);
  add_residual(pass, y);
  return y;
}

void FffFfn::nodes_forward(const Pass& pass) {
  const Index rows = input_.rows();
  logits_ = pass.arena.take<float>(rows * nodes_);
  choices_ = pass.arena.take<float>(rows * nodes_);
  mixture_ = pass.arena.take<float>(rows * leaves_);
  node_.forward(pass, rows, input_.x, logits_);
  kernels::TreeMixture tree;
  tree.rows = rows;
  tree.depth = options_.tree.depth;
  tree.logits = logits_;
  tree.bias = pass.parameters.value(node_.bias);
  tree.hard = options_.tree.hard;
  tree.leak = static_cast<float>(options_.tree.region_leak);
  tree.key = leak_key(pass);
  tree.first_row = static_cast<std::uint32_t>(input_.first_row());
  tree.choices = choices_;
  tree.mixture = mixture_;
  tree.entropy_sums = pass.arena.take<float>(nodes_);
  kernels::tree_mixture(pass.context, tree);
  state_.entropy_sums = tree.entropy_sums;
  state_.mixture = mixture_;
}

// y = scaled w2 + mixture b2, all leaves in one sum.
float* FffFfn::leaves_forward(const Pass& pass) {
  const Index rows = input_.rows(), out = options_.out;
  linear_ = pass.arena.take<float>(rows * hidden());
  activated_ = pass.arena.take<float>(rows * hidden());
  scaled_ = pass.arena.take<float>(rows * hidden());
  float* y = pass.arena.take<float>(rows * out);
  const kernels::LinearProducts first = pass.linear(rows, options_.width, hidden());
  kernels::gemm(pass.context, pass.by_weight(first.forward(input_.x, weights_.value(kW1), linear_)));
  kernels::bias_activation_dropout(
      pass.context, {.rows = rows,
                     .cols = hidden(),
                     .activation = kernels::Activation::kRelu,
                     .x = linear_,
                     .bias = weights_.value(kB1),
                     .y = activated_,
                     .dropout = pass.dropout_for(Purpose::kFfnDropout, options_.layer, input_.first_row())});
  kernels::scale_leaves(pass.context, {.rows = rows,
                                       .leaves = leaves_,
                                       .leaf_width = options_.tree.leaf,
                                       .mixture = mixture_,
                                       .hidden = activated_,
                                       .scaled = scaled_});
  const kernels::LinearProducts second = pass.linear(rows, out, hidden()), biases = pass.linear(rows, out, leaves_);
  kernels::gemm(pass.context, pass.by_weight(second.input_gradient(scaled_, weights_.value(kW2), y)));
  kernels::Gemm with_biases = biases.input_gradient(mixture_, weights_.value(kB2), y);
  with_biases.num_addends = 1;
  with_biases.addends[0] = y;
  kernels::gemm(pass.context, pass.by_weight(with_biases));
  return y;
}

void FffFfn::add_residual(const Pass& pass, float* y) const {
  if (!input_.residual) return;
  kernels::bias_dropout_residual(pass.context, {.rows = input_.rows(),
                                                .cols = options_.out,
                                                .x = y,
                                                .residual = input_.residual,
                                                .y = y,
                                                .dropout = dropout(pass)});
}

double FffFfn::mean_entropy(const Pass& pass) const {
  std::vector<float> sums(static_cast<std::size_t>(nodes_));
  kernels::copy_to_host(pass.context, sums.data(), state_.entropy_sums, nodes_ * Index{sizeof(float)});
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  return sum / static_cast<double>(nodes_ * std::max<Index>(1, input_.rows()));
}

InputGradient FffFfn::backward(const Pass& pass, const float* d_y, bool wants_d_x) {
  const Index rows = input_.rows(), out = options_.out;
  float* d_x = wants_d_x ? pass.arena.take<float>(rows * options_.width) : nullptr;  // a sum of two products
  const kernels::ArenaScope scope(pass.arena);
  kernels::Operand d_sum = d_y;
  if (input_.residual) {
    const kernels::NewOperand dropped = pass.operand(rows, out);
    kernels::dropout_backward(pass.context,
                              {.rows = rows, .cols = out, .d_y = d_y, .d_x = dropped, .dropout = dropout(pass)});
    d_sum = dropped;
  }
  float* d_mixture = pass.arena.take<float>(rows * leaves_);
  const kernels::Operand d_hidden = leaves_backward(pass, d_sum, d_mixture);

  const kernels::LinearProducts first = pass.linear(rows, options_.width, hidden());
  float* d_w1 = pass.arena.take<float>(hidden() * options_.width);
  kernels::gemm(pass.context, first.weight_gradient(d_hidden, input_.x, d_w1));
  weights_.add_gradient(pass, kW1, d_w1);
  if (d_x) kernels::gemm(pass.context, pass.by_weight(first.input_gradient(d_hidden, weights_.value(kW1), d_x)));
  if (!options_.tree.hard) nodes_backward(pass, d_mixture, d_x);
  return {d_x};
}

kernels::Operand FffFfn::leaves_backward(const Pass& pass, const kernels::Operand& d_y, float* d_mixture) const {
  const Index rows = input_.rows(), out = options_.out;
  const kernels::LinearProducts second = pass.linear(rows, out, hidden()), biases = pass.linear(rows, out, leaves_);
  float* d_activated = pass.arena.take<float>(rows * hidden());
  float* d_w2 = pass.arena.take<float>(hidden() * out);
  float* d_b2 = pass.arena.take<float>(leaves_ * out);
  float* d_b1 = pass.arena.take<float>(hidden());
  const kernels::Gemm products[] = {second.weight_gradient(scaled_, d_y, d_w2),
                                    biases.weight_gradient(mixture_, d_y, d_b2),
                                    pass.by_weight(second.forward(d_y, weights_.value(kW2), d_activated)),
                                    pass.by_weight(biases.forward(d_y, weights_.value(kB2), d_mixture))};
  kernels::gemm(pass.context, products);
  kernels::scale_leaves_backward(pass.context, {.rows = rows,
                                                .leaves = leaves_,
                                                .leaf_width = options_.tree.leaf,
                                                .mixture = mixture_,
                                                .hidden = activated_,
                                                .d_scaled = d_activated,
                                                .d_hidden = d_activated,
                                                .d_mixture = d_mixture});
  const kernels::NewOperand d_hidden = pass.operand_over(d_activated, rows, hidden());
  kernels::bias_activation_dropout_backward(
      pass.context, {.rows = rows,
                     .cols = hidden(),
                     .activation = kernels::Activation::kRelu,
                     .x = linear_,
                     .bias = weights_.value(kB1),
                     .d_y = d_activated,
                     .d_x = d_hidden,
                     .d_bias = d_b1,
                     .dropout = pass.dropout_for(Purpose::kFfnDropout, options_.layer, input_.first_row())});
  weights_.add_gradient(pass, kW2, d_w2);
  weights_.add_gradient(pass, kB2, d_b2);
  weights_.add_gradient(pass, kB1, d_b1);
  return d_hidden;
}

void FffFfn::nodes_backward(const Pass& pass, const float* d_mixture, float* d_x) const {
  const Index rows = input_.rows();
  float* d_logits = pass.arena.take<float>(rows * nodes_);
  const auto d_bias = pass.gradients->leaf(node_.bias, pass.arena);
  kernels::TreeMixtureBackward tree;
  tree.rows = rows;
  tree.depth = options_.tree.depth;
  tree.logits = logits_;
  tree.bias = pass.parameters.value(node_.bias);
  tree.choices = choices_;
  tree.leak = static_cast<float>(options_.tree.region_leak);
  tree.key = leak_key(pass);
  tree.first_row = static_cast<std::uint32_t>(input_.first_row());
  tree.entropy_scale = static_cast<float>(pass.auxiliary_scale * options_.tree.hardening /
                                          static_cast<double>(nodes_ * std::max<Index>(1, rows)));
  tree.d_mixture = d_mixture;
  tree.d_logits = d_logits;
  tree.d_bias = d_bias.data;
  kernels::tree_mixture_backward(pass.context, tree);
  pass.gradients->add(pass.context, d_bias);

  const kernels::LinearProducts nodes = pass.linear(rows, options_.width, nodes_);
  kernels::gemm(pass.context, pass.gradients->leaf_product(node_.weight, nodes.weight_gradient(d_logits, input_.x)));
  if (!d_x) return;
  kernels::Gemm to_input = nodes.input_gradient(d_logits, pass.parameters.value(node_.weight), d_x);
  to_input.num_addends = 1;
  to_input.addends[0] = d_x;
  kernels::gemm(pass.context, pass.by_weight(to_input));
}

std::unique_ptr<Ffn> make_fff_ffn(const FfnOptions& options, ParameterTable& table) {
  return std::make_unique<FffFfn>(options, table);
}

}  // namespace switchyard
