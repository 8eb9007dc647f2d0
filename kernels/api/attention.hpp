// Multi-head self-attention of each sample with itself (Vaswani et al., 1706.03762): P = softmax(Q K^T /
// sqrt(head_size)), out = dropout(P) V. Scores stay in a thread's own scratch: only their log-sum-exp is kept for the
// backward pass, which computes P again (Dao et al., 2205.14135).
#pragma once

#include "core/context.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/api/operand.hpp"

namespace switchyard::kernels {

// precision: that of the products; the CPU's are in fp32 in any case. Arrays that are read are given as fp32 values or,
// where reads_rounded(device, precision), as rounded rows of samples * tokens; one of the two is null.
//
// Dropout here: array row r = (sample, query token) has Philox row first_row + r; column of (head, key token j) is
// head * round_up(tokens, 8) + j. row_ids is not used.
struct Attention {
  Index samples = 0, tokens = 0, heads = 0, head_size = 0;  // width = heads * head_size
  Operand qkv{};                                            // (samples, tokens, 3, heads, head_size), without bias
  const float* bias = nullptr;                              // (3, heads, head_size)
  NewOperand out{};                                         // (samples, tokens, heads, head_size)
  float* log_sum_exp = nullptr;                             // (samples, heads, tokens)
  Dropout dropout{};
  Precision precision = Precision::kFp32;
};
void attention(const Context& context, const Attention& args);

struct AttentionBackward {
  Index samples = 0, tokens = 0, heads = 0, head_size = 0;
  Operand qkv{};
  const float* bias = nullptr;
  Operand out{};
  const float* log_sum_exp = nullptr;
  Operand d_out{};          // (samples, tokens, heads, head_size)
  NewOperand d_qkv{};       // (samples, tokens, 3, heads, head_size), overwritten
  float* d_bias = nullptr;  // (3, heads, head_size), overwritten: column sums of d_qkv
  Dropout dropout{};
  Precision precision = Precision::kFp32;
};
void attention_backward(const Context& context, const AttentionBackward& args);

}  // namespace switchyard::kernels
