#include <cmath>
#include <limits>

#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/vector_math.hpp"

namespace switchyard::kernels::cpu {

namespace {

// One row: z = logits + bias, p = exp(z - max) / sum.
struct SoftmaxRow {
  float *z, *exp_z;  // (classes)
  float max, sum;
  Index argmax;
  bool any_nan;

  float p(Index c) const { return exp_z[c] / sum; }
  float loss(Index label) const { return std::log(sum) + (max - z[label]); }
  float correct(Index label) const { return !any_nan && argmax == label ? 1.0f : 0.0f; }
};

// room: (2, classes)
SoftmaxRow softmax_row(Index classes, const float* logits, const float* bias, float* room) {
  SoftmaxRow row{room, room + classes, 0, 0, 0, false};
  float* const z = row.z;
  float* const exp_z = row.exp_z;
  for (Index c = 0; c < classes; ++c) {
    z[c] = bias ? logits[c] + bias[c] : logits[c];
    if (z[c] > z[row.argmax]) row.argmax = c;
    row.any_nan = row.any_nan || std::isnan(z[c]);
  }
  const float max = row.max = z[row.argmax];
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index c = 0; c < classes; ++c) {
    exp_z[c] = vector_exp(z[c] - max);
    sum += exp_z[c];
  }
  row.sum = sum;
  return row;
}

// Of one sample and its two rows.
struct Divergence {
  float symmetric = 0;     // (KL(p1||p2) + KL(p2||p1)) / 2
  float first_second = 0;  // KL(p1||p2)
  float second_first = 0;  // KL(p2||p1)
  const float* log_ratio;  // (classes) log p1 - log p2
};

Divergence divergence_of(Index classes, const SoftmaxRow& first, const SoftmaxRow& second, float* log_ratio) {
  Divergence divergence{.log_ratio = log_ratio};
  const float offset = (first.max - second.max) + (std::log(first.sum) - std::log(second.sum));
  float symmetric = 0, first_second = 0, second_first = 0;
#pragma omp simd reduction(+ : symmetric, first_second, second_first)
  for (Index c = 0; c < classes; ++c) {
    log_ratio[c] = (first.z[c] - second.z[c]) - offset;
    symmetric += (first.p(c) - second.p(c)) * log_ratio[c];
    first_second += first.p(c) * log_ratio[c];
    second_first -= second.p(c) * log_ratio[c];
  }
  divergence.symmetric = symmetric / 2;
  divergence.first_second = first_second;
  divergence.second_first = second_first;
  return divergence;
}

}  // namespace

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args) {
  const Index classes = args.classes;
  for_rows(context, args.rows, [&](Index row) {
    thread_local Scratch<float> scratch;
    float* const room = scratch.get(5 * classes);
    float* const inner = room + 4 * classes;  // p, with of_softmax
    const Index label = args.labels[row];
    SoftmaxRow softmax = softmax_row(classes, args.logits + row * classes, args.bias, room);
    if (args.of_softmax) {
      for (Index c = 0; c < classes; ++c) inner[c] = softmax.p(c);
      softmax = softmax_row(classes, inner, nullptr, room + 2 * classes);
    }
    args.loss[row] = softmax.loss(label);
    args.correct[row] = softmax.correct(label);
    if (!args.d_logits) return;
    float* d_logits = args.d_logits + row * classes;
    const auto d_z = [&](Index c) { return softmax.p(c) - (c == label ? 1.0f : 0.0f); };
    if (!args.of_softmax) {
      for (Index c = 0; c < classes; ++c) d_logits[c] = args.scale * d_z(c);
      return;
    }
    float dot = 0;
    for (Index c = 0; c < classes; ++c) dot += inner[c] * d_z(c);
    for (Index c = 0; c < classes; ++c) d_logits[c] = args.scale * inner[c] * (d_z(c) - dot);
  });
}

void consistency_loss(const Context& context, const ConsistencyLoss& args) {
  const Index classes = args.classes;
  const bool both_sides = args.kind == Consistency::kThor;
  for_rows(context, args.samples, [&](Index sample) {
    thread_local Scratch<float> scratch;
    float* const room = scratch.get(5 * classes);
    const Index label = args.labels[sample], again = args.samples + sample;
    const SoftmaxRow first = softmax_row(classes, args.logits + sample * classes, args.bias, room);
    const SoftmaxRow second = softmax_row(classes, args.logits + again * classes, args.bias, room + 2 * classes);
    const Divergence divergence = divergence_of(classes, first, second, room + 4 * classes);
    args.loss[sample] = first.loss(label);
    args.loss[again] = second.loss(label);
    args.correct[sample] = first.correct(label);
    args.correct[again] = second.correct(label);
    args.divergence[sample] = divergence.symmetric;
    if (!args.d_logits) return;
    const float half = args.weight / 2;
    for (Index c = 0; c < classes; ++c) {
      const float p1 = first.p(c), p2 = second.p(c), log_ratio = divergence.log_ratio[c];
      const float target = c == label ? 1.0f : 0.0f;
      float d_first = p1 - p2, d_second = p2 - p1;
      if (both_sides) {
        d_first += p1 * (log_ratio - divergence.first_second);
        d_second += p2 * (-log_ratio - divergence.second_first);
      }
      args.d_logits[sample * classes + c] = args.scale * (p1 - target + half * d_first);
      args.d_logits[again * classes + c] = args.scale * ((both_sides ? p2 - target : 0.0f) + half * d_second);
    }
  });
}

}  // namespace switchyard::kernels::cpu
