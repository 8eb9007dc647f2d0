// The feed-forward network of every transformer: activation(x w1^T + b1) w2^T + b2, with dropout after the activation
// and on the residual branch.
#include "core/error.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"
#include "model/ffn.hpp"

namespace switchyard {

kernels::Dropout residual_dropout(const Pass& pass, const Ffn::Input& input, Purpose purpose, Index layer) {
  return input.residual ? pass.dropout_for(purpose, layer, input.first_row()) : kernels::Dropout{};
}

float* feed_forward(const Pass& pass, const FfnOptions& options, const FfnWeights& weights, const Ffn::Input& input,
                    const FfnDropout& dropout, FfnActivations& activations) {
  const Index rows = input.rows(), width = options.width, out = options.out, hidden = options.hidden;
  const kernels::NewOperand unbiased = pass.operand(rows, hidden), activated = pass.operand(rows, hidden);
  activations = {unbiased, activated};
  kernels::gemm(pass.context, pass.by_weight(pass.linear(rows, width, hidden).forward(input.x, weights.w1, unbiased)));
  kernels::bias_activation_dropout(pass.context,
                                   {.rows = rows,
                                    .cols = hidden,
                                    .activation = options.activation,
                                    .x = unbiased,
                                    .bias = weights.b1,
                                    .y = activated,
                                    .dropout = pass.dropout_for(dropout.hidden, options.layer, input.first_row())});
  float* y = pass.arena.take<float>(rows * out);
  const kernels::ArenaScope scope(pass.arena);
  // What is no branch of a residual stream may be logits: those stay fp32.
  const kernels::NewOperand branch = input.residual ? pass.operand_over(y, rows, out) : kernels::NewOperand{y};
  kernels::gemm(pass.context, pass.by_weight(pass.linear(rows, hidden, out).forward(activated, weights.w2, branch)));
  kernels::bias_dropout_residual(pass.context,
                                 {.rows = rows,
                                  .cols = out,
                                  .x = branch,
                                  .bias = weights.b2,
                                  .residual = input.residual,
                                  .y = y,
                                  .dropout = residual_dropout(pass, input, dropout.residual, options.layer)});
  return y;
}

namespace {

class DenseFfn final : public Ffn {
 public:
  DenseFfn(const FfnOptions& options, ParameterTable& table, const std::string& name, const FfnDropout& dropout)
      : options_(options),
        dropout_(dropout),
        first_(Linear::add(table, name + ".w1", name + ".b1", options.width, options.hidden)),
        second_(Linear::add(table, name + ".w2", name + ".b2", options.hidden, options.out)) {}

  InputForm prepare(const Pass&, const Input&) override { return {kernels::Readers::kProducts}; }

  float* forward(const Pass& pass, const Input& input, AuxiliaryLosses*) override {
    input_ = input;
    const ParameterStore& p = pass.parameters;
    return feed_forward(pass, options_,
                        {p.value(first_.weight), p.value(first_.bias), p.value(second_.weight), p.value(second_.bias)},
                        input, dropout_, activations_);
  }

  InputGradient backward(const Pass& pass, const float* d_y, bool wants_d_x) override {
    const Index rows = input_.rows(), out = options_.out, hidden = options_.hidden;
    const kernels::NewOperand d_x = wants_d_x ? pass.operand(rows, options_.width) : kernels::NewOperand{};
    const kernels::ArenaScope scope(pass.arena);

    const kernels::NewOperand d_second = pass.operand(rows, out);
    const auto d_b2 = pass.gradients->leaf(second_.bias, pass.arena);
    kernels::dropout_backward(pass.context,
                              {.rows = rows,
                               .cols = out,
                               .d_y = d_y,
                               .d_x = d_second,
                               .d_bias = d_b2.data,
                               .dropout = residual_dropout(pass, input_, dropout_.residual, options_.layer)});
    pass.gradients->add(pass.context, d_b2);

    const kernels::NewOperand d_hidden = pass.operand(rows, hidden);  // until then the gradient of its activation
    second_.backward(pass, rows, activations_.activated, d_second, d_hidden);
    const auto d_b1 = pass.gradients->leaf(first_.bias, pass.arena);
    kernels::bias_activation_dropout_backward(
        pass.context, {.rows = rows,
                       .cols = hidden,
                       .activation = options_.activation,
                       .x = activations_.hidden,
                       .bias = pass.parameters.value(first_.bias),
                       .d_y = d_hidden,
                       .d_x = d_hidden,
                       .d_bias = d_b1.data,
                       .dropout = pass.dropout_for(dropout_.hidden, options_.layer, input_.first_row())});
    pass.gradients->add(pass.context, d_b1);
    first_.backward(pass, rows, input_.x, d_hidden, d_x);
    return {d_x};
  }

 private:
  FfnOptions options_;
  FfnDropout dropout_;
  Linear first_, second_;
  Input input_;
  FfnActivations activations_;
};

}  // namespace

std::unique_ptr<Ffn> make_dense_ffn(const FfnOptions& options, ParameterTable& table, const std::string& name,
                                    const FfnDropout& dropout) {
  return std::make_unique<DenseFfn>(options, table, options.prefix + "." + name, dropout);
}

std::unique_ptr<Ffn> make_ffn(const FfnOptions& options, ParameterTable& table) {
  if (options.kind == "dense")
    return options.patches > 0 ? make_patch_network(options, table) : make_dense_ffn(options, table);
  if (options.kind == "moe") return make_moe_ffn(options, table);
  if (options.kind == "fff") return make_fff_ffn(options, table);
  fail_usage("ffn.kind: \"{}\" is not one of dense, moe, fff.", options.kind);
}

}  // namespace switchyard
