#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// loss[r] = logsumexp(z) - z[label], z = logits[r] + bias; correct[r] = 1 where z[label] is the (first) maximum, else
// 0. d_logits[r] = scale (softmax(z) - onehot(label)); null: not wanted. A row with NaN is never correct, its loss is
// NaN.
struct SoftmaxCrossEntropy {
  Index rows = 0, classes = 0;
  const float* logits = nullptr;         // (rows, classes)
  const float* bias = nullptr;           // (classes)
  const std::int32_t* labels = nullptr;  // (rows), each in [0, classes)
  float scale = 1;
  float* loss = nullptr;      // (rows)
  float* correct = nullptr;   // (rows)
  float* d_logits = nullptr;  // (rows, classes); may be logits
};
void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args);

}  // namespace switchyard::kernels
