#include "model/attention_block.hpp"

#include "kernels/api/attention.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard {

AttentionBlock::AttentionBlock(ParameterTable& table, const std::string& prefix, Index layer, Index width, Index heads)
    : layer_(layer),
      width_(width),
      heads_(heads),
      norm_(table, prefix + ".norm1", width),
      qkv_(Linear::add(table, prefix + ".attention.qkv.weight", prefix + ".attention.qkv.bias", width, 3 * width)),
      output_(
          Linear::add(table, prefix + ".attention.output.weight", prefix + ".attention.output.bias", width, width)) {}

float* AttentionBlock::forward(const Pass& pass, Index samples, Index tokens, Index first_sample, const float* x) {
  samples_ = samples;
  tokens_ = tokens;
  first_row_ = first_sample * tokens;
  const Index rows = samples * tokens;

  normed_ = norm_.forward(pass, rows, x, width_);
  projected_ = pass.operand(rows, 3 * width_);
  qkv_.forward(pass, rows, normed_, projected_);

  attended_ = pass.operand(rows, width_);
  log_sum_exp_ = pass.arena.take<float>(rows * heads_);
  kernels::attention(pass.context, {.samples = samples,
                                    .tokens = tokens,
                                    .heads = heads_,
                                    .head_size = width_ / heads_,
                                    .qkv = projected_,
                                    .bias = pass.parameters.value(qkv_.bias),
                                    .out = attended_,
                                    .log_sum_exp = log_sum_exp_,
                                    .dropout = pass.dropout_for(Purpose::kAttentionDropout, layer_, first_row_),
                                    .precision = pass.precision});

  float* y = pass.arena.take<float>(rows * width_);
  const kernels::ArenaScope scope(pass.arena);
  const kernels::NewOperand branch = pass.operand_over(y, rows, width_);
  output_.forward(pass, rows, attended_, branch);
  kernels::bias_dropout_residual(pass.context,
                                 {.rows = rows,
                                  .cols = width_,
                                  .x = branch,
                                  .bias = pass.parameters.value(output_.bias),
                                  .residual = x,
                                  .y = y,
                                  .dropout = pass.dropout_for(Purpose::kAttentionResidualDropout, layer_, first_row_)});
  return y;
}

void AttentionBlock::backward(const Pass& pass, float* d_x) const {
  const kernels::ArenaScope scope(pass.arena);
  const Index rows = samples_ * tokens_;

  const kernels::NewOperand d_output = pass.operand(rows, width_);
  const auto d_output_bias = pass.gradients->leaf(output_.bias, pass.arena);
  kernels::dropout_backward(pass.context,
                            {.rows = rows,
                             .cols = width_,
                             .d_y = d_x,
                             .d_x = d_output,
                             .d_bias = d_output_bias.data,
                             .dropout = pass.dropout_for(Purpose::kAttentionResidualDropout, layer_, first_row_)});
  pass.gradients->add(pass.context, d_output_bias);

  const kernels::NewOperand d_attended = pass.operand(rows, width_);
  output_.backward(pass, rows, attended_, d_output, d_attended);

  const kernels::NewOperand d_projected = pass.operand(rows, 3 * width_);
  const auto d_qkv_bias = pass.gradients->leaf(qkv_.bias, pass.arena);
  kernels::attention_backward(pass.context,
                              {.samples = samples_,
                               .tokens = tokens_,
                               .heads = heads_,
                               .head_size = width_ / heads_,
                               .qkv = projected_,
                               .bias = pass.parameters.value(qkv_.bias),
                               .out = attended_,
                               .log_sum_exp = log_sum_exp_,
                               .d_out = d_attended,
                               .d_qkv = d_projected,
                               .d_bias = d_qkv_bias.data,
                               .dropout = pass.dropout_for(Purpose::kAttentionDropout, layer_, first_row_),
                               .precision = pass.precision});
  pass.gradients->add(pass.context, d_qkv_bias);

  const kernels::NewOperand d_normed = d_attended;  // in its place
  qkv_.backward(pass, rows, normed_, d_projected, d_normed);
  norm_.backward(pass, {d_normed}, d_x);
}

}  // namespace switchyard
