// y = x + dropout(attention(norm(x)) Wo^T + bo): the first half of a pre-norm transformer block.
#pragma once

#include "model/layers.hpp"

namespace switchyard {

class AttentionBlock {
 public:
  // Parameters PREFIX.norm1.*, PREFIX.attention.qkv.* (rows: q, k, v, each by head), PREFIX.attention.output.*
  AttentionBlock(ParameterTable& table, const std::string& prefix, Index layer, Index width, Index heads);

  // x: (samples, tokens, width) -> y, the same shape, from the arena.
  float* forward(const Pass& pass, Index samples, Index tokens, Index first_sample, const float* x);
  // d_x: the gradient of y, turned in place into that of x.
  void backward(const Pass& pass, float* d_x) const;

 private:
  Index layer_, width_, heads_;
  LayerNorm norm_;
  Linear qkv_, output_;
  // Of the microbatch at hand:
  Index samples_ = 0, tokens_ = 0, first_row_ = 0;
  kernels::Operand normed_;        // (rows, width)
  kernels::NewOperand projected_;  // (rows, 3, width), without bias
  kernels::NewOperand attended_;   // (rows, width)
  float* log_sum_exp_ = nullptr;   // (samples, heads, tokens)
};

}  // namespace switchyard
