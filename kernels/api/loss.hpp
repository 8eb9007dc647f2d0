#pragma once

#include <cstdint>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

// loss[r] = logsumexp(z) - z[label], z = logits[r] + bias; correct[r] = 1 where z[label] is the (first) maximum, else
// 0. d_logits[r] = scale (softmax(z) - onehot(label)); null: not wanted. A row with NaN is never correct, its loss is
// NaN.
// With of_softmax z = p, p = softmax(logits[r] + bias), as where a network that ends in a softmax meets a loss that
// takes one of its own: d_logits[r] = scale p (g - p.g), g = softmax(p) - onehot(label).
struct SoftmaxCrossEntropy {
  Index rows = 0, classes = 0;
  const float* logits = nullptr;         // (rows, classes)
  const float* bias = nullptr;           // (classes); null: zeros
  const std::int32_t* labels = nullptr;  // (rows), each in [0, classes)
  float scale = 1;
  bool of_softmax = false;
  float* loss = nullptr;      // (rows)
  float* correct = nullptr;   // (rows)
  float* d_logits = nullptr;  // (rows, classes); may be logits
};
void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args);

// What two passes over the same samples learn from the labels and from each other: rows s and samples + s are those of
// sample s, z1 and z2 = logits + bias, p = softmax(z), KL(p||q) = sum p (log p - log q).
//   loss[r], correct[r] as above
//   divergence[s] = (KL(p1||p2) + KL(p2||p1)) / 2 = 1/2 sum (p1 - p2) (log p1 - log p2)
// d_logits = scale times the gradient of the sum over samples of
//   kThor (2110.04260)    loss[s] + loss[samples + s] + weight divergence[s]
//     d z1 = p1 - onehot + weight/2 (p1 - p2 + p1 (log p1 - log p2 - KL(p1||p2))), and z2 the same way round
//   kAdamix (2205.12410)  loss[s] + weight/2 (KL(sg p2||p1) + KL(sg p1||p2)), sg: taken as a constant
//     d z1 = p1 - onehot + weight/2 (p1 - p2),   d z2 = weight/2 (p2 - p1)
enum class Consistency { kThor, kAdamix };
struct ConsistencyLoss {
  Index samples = 0, classes = 0;
  Consistency kind = Consistency::kThor;
  const float* logits = nullptr;         // (2 samples, classes)
  const float* bias = nullptr;           // (classes); null: zeros
  const std::int32_t* labels = nullptr;  // (samples), each in [0, classes)
  float scale = 1, weight = 1;
  float* loss = nullptr;        // (2 samples)
  float* correct = nullptr;     // (2 samples)
  float* divergence = nullptr;  // (samples), without weight
  float* d_logits = nullptr;    // (2 samples, classes); null: not wanted; may be logits
};
void consistency_loss(const Context& context, const ConsistencyLoss& args);

}  // namespace switchyard::kernels
