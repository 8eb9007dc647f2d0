#include <cmath>
#include <limits>

#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args) {
  const Index classes = args.classes;
  for_rows(context, args.rows, [&](Index row) {
    thread_local Scratch<float> scratch;
    float* z = scratch.get(2 * classes);
    float* exp_z = z + classes;
    const Index label = args.labels[row];
    Index argmax = 0;
    bool any_nan = false;
    for (Index c = 0; c < classes; ++c) {
      z[c] = args.logits[row * classes + c] + args.bias[c];
      if (z[c] > z[argmax]) argmax = c;
      any_nan = any_nan || std::isnan(z[c]);
    }
    const float max = z[argmax];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index c = 0; c < classes; ++c) {
      exp_z[c] = vector_exp(z[c] - max);
      sum += exp_z[c];
    }
    args.loss[row] = std::log(sum) + (max - z[label]);
    args.correct[row] = !any_nan && argmax == label ? 1.0f : 0.0f;
    if (!args.d_logits) return;
    float* d_logits = args.d_logits + row * classes;
    for (Index c = 0; c < classes; ++c) d_logits[c] = args.scale * (exp_z[c] / sum - (c == label ? 1.0f : 0.0f));
  });
}

}  // namespace switchyard::kernels::cpu
