#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr Index kRowsPerBlock = kThreads / kWarpSize;

// A warp has a row. Lane l takes classes l, l + 32, ..., everywhere, so that results may be written over the logits.
__device__ inline Index row_of_warp() { return static_cast<Index>(blockIdx.x) * kRowsPerBlock + warp(); }

template <typename Body>
__device__ void for_classes(int classes, const Body& body) {
  for (int c = lane(); c < classes; c += kWarpSize) body(c);
}

struct Largest {
  float value;  // NaN where there is one
  int index;    // of the first of equals
};
__device__ inline Largest larger(const Largest& a, const Largest& b) {
  if (a.value != a.value) return a;
  if (b.value != b.value) return b;
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// z(c), c in [0, classes), and p = exp(z - max) / sum.
template <typename Z>
struct SoftmaxRow {
  Z z;
  float max, sum;
  int argmax;

  __device__ float p(int c) const { return expf(z(c) - max) / sum; }
  __device__ float loss(int label) const { return logf(sum) + (max - z(label)); }
  __device__ float correct(int label) const { return max == max && argmax == label ? 1.0f : 0.0f; }
};

template <typename Z>
__device__ SoftmaxRow<Z> softmax_row(int classes, const Z& z) {
  Largest largest{-INFINITY, classes};
  for_classes(classes, [&](int c) { largest = larger(largest, {z(c), c}); });
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2)
    largest = larger(
        largest, {__shfl_xor_sync(kWholeWarp, largest.value, mask), __shfl_xor_sync(kWholeWarp, largest.index, mask)});
  float sum = 0;
  for_classes(classes, [&](int c) { sum += expf(z(c) - largest.value); });
  return {z, largest.value, warp_sum(sum), largest.index};
}

struct Logits {
  const float* row;
  const float* bias;
  __device__ float operator()(int c) const { return bias ? row[c] + bias[c] : row[c]; }
};
struct Probabilities {
  SoftmaxRow<Logits> softmax;
  __device__ float operator()(int c) const { return softmax.p(c); }
};

template <typename Row>
__device__ void write_loss(const Row& row, int label, float* loss, float* correct) {
  if (lane() == 0) {
    *loss = row.loss(label);
    *correct = row.correct(label);
  }
  __syncwarp();  // the label's logit has been read
}

__global__ void __launch_bounds__(kThreads) cross_entropy_kernel(SoftmaxCrossEntropy args) {
  const Index r = row_of_warp();
  if (r >= args.rows) return;
  const int classes = static_cast<int>(args.classes), label = args.labels[r];
  const auto row = softmax_row(classes, Logits{args.logits + r * args.classes, args.bias});
  write_loss(row, label, args.loss + r, args.correct + r);
  if (!args.d_logits) return;
  float* const d_logits = args.d_logits + r * args.classes;
  for_classes(classes, [&](int c) { d_logits[c] = args.scale * (row.p(c) - (c == label ? 1.0f : 0.0f)); });
}

__global__ void __launch_bounds__(kThreads) cross_entropy_of_softmax_kernel(SoftmaxCrossEntropy args) {
  const Index r = row_of_warp();
  if (r >= args.rows) return;
  const int classes = static_cast<int>(args.classes), label = args.labels[r];
  const auto inner = softmax_row(classes, Logits{args.logits + r * args.classes, args.bias});
  const auto outer = softmax_row(classes, Probabilities{inner});
  write_loss(outer, label, args.loss + r, args.correct + r);
  if (!args.d_logits) return;
  float* const d_logits = args.d_logits + r * args.classes;
  const auto d_z = [&](int c) { return outer.p(c) - (c == label ? 1.0f : 0.0f); };
  float dot = 0;
  for_classes(classes, [&](int c) { dot = fmaf(inner.p(c), d_z(c), dot); });
  dot = warp_sum(dot);
  for_classes(classes, [&](int c) { d_logits[c] = args.scale * inner.p(c) * (d_z(c) - dot); });
}

__global__ void __launch_bounds__(kThreads) consistency_loss_kernel(ConsistencyLoss args) {
  const Index sample = row_of_warp(), again = args.samples + sample;
  if (sample >= args.samples) return;
  const int classes = static_cast<int>(args.classes), label = args.labels[sample];
  const auto first = softmax_row(classes, Logits{args.logits + sample * args.classes, args.bias});
  const auto second = softmax_row(classes, Logits{args.logits + again * args.classes, args.bias});
  const float offset = (first.max - second.max) + (logf(first.sum) - logf(second.sum));
  const auto log_ratio = [&](int c) { return (first.z(c) - second.z(c)) - offset; };  // log p1 - log p2
  float symmetric = 0, first_second = 0, second_first = 0;
  for_classes(classes, [&](int c) {
    const float p1 = first.p(c), p2 = second.p(c), ratio = log_ratio(c);
    symmetric = fmaf(p1 - p2, ratio, symmetric);
    first_second = fmaf(p1, ratio, first_second);
    second_first = fmaf(p2, -ratio, second_first);
  });
  symmetric = warp_sum(symmetric);
  first_second = warp_sum(first_second);  // KL(p1||p2)
  second_first = warp_sum(second_first);  // KL(p2||p1)
  if (lane() == 0) args.divergence[sample] = symmetric / 2;
  write_loss(first, label, args.loss + sample, args.correct + sample);
  write_loss(second, label, args.loss + again, args.correct + again);
  if (!args.d_logits) return;
  const bool both_sides = args.kind == Consistency::kThor;
  const float half = args.weight / 2;
  for_classes(classes, [&](int c) {
    const float p1 = first.p(c), p2 = second.p(c), ratio = log_ratio(c), target = c == label ? 1.0f : 0.0f;
    float d_first = p1 - p2, d_second = p2 - p1;
    if (both_sides) {
      d_first = fmaf(p1, ratio - first_second, d_first);
      d_second = fmaf(p2, -ratio - second_first, d_second);
    }
    args.d_logits[sample * args.classes + c] = args.scale * fmaf(half, d_first, p1 - target);
    args.d_logits[again * args.classes + c] = args.scale * fmaf(half, d_second, both_sides ? p2 - target : 0.0f);
  });
}

}  // namespace

void softmax_cross_entropy(const Context& context, const SoftmaxCrossEntropy& args) {
  launch(context, {.blocks = ceil_div(args.rows, kRowsPerBlock), .threads = kThreads},
         args.of_softmax ? cross_entropy_of_softmax_kernel : cross_entropy_kernel, args);
}

void consistency_loss(const Context& context, const ConsistencyLoss& args) {
  launch(context, {.blocks = ceil_div(args.samples, kRowsPerBlock), .threads = kThreads}, consistency_loss_kernel,
         args);
}

}  // namespace switchyard::kernels::cuda
