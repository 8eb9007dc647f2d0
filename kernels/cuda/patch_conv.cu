#include "kernels/api/patch_conv.hpp"

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 128;

// A warp has a class of a row: lane l adds the class's hidden values l, l + 32, ..., over all patches.
template <typename Function>
__global__ void __launch_bounds__(kThreads) patch_pool_kernel(PatchPool args) {
  const Index result = global_thread() / kWarpSize;  // row classes + class
  if (result >= args.rows * args.classes) return;
  const int filters = static_cast<int>(args.filters), classes = static_cast<int>(args.classes);
  const int share = filters / classes, size = share * static_cast<int>(args.patches);
  const int first_filter = static_cast<int>(result % classes) * share;
  const float* const hidden = args.hidden + result / classes * args.patches * filters + first_filter;
  const float* const bias = args.bias + first_filter;
  float sum = 0;
  for (int i = lane(); i < size; i += kWarpSize) {
    const int patch = i / share, filter = i % share;
    sum = __fadd_rn(sum, Function::value(hidden[patch * filters + filter] + bias[filter]));
  }
  sum = warp_sum(sum);
  if (lane() == 0) args.y[result] = sum;
}

// Rows are patches, columns filters.
template <typename Function>
struct PoolBackwardPass {
  PatchPoolBackward args;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return octet.load(args.bias);
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    const int share = static_cast<int>(args.filters / args.classes);
    const float* const d_y = args.d_y + row / args.patches * args.classes;
    Eight d = octet.load(args.hidden + row * args.filters);
    for (int i = 0; i < 8; ++i)
      d.at[i] = i < octet.count ? d_y[(octet.first + i) / share] * Function::slope(d.at[i] + bias.at[i]) : 0.0f;
    octet.store(args.d_hidden + row * args.filters, d);
    return d;
  }
};

struct PatchSumPass {
  PatchSum args;

  template <typename Octet>
  __device__ Eight constants(const Octet&) const {
    return {};
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight&) const {
    Eight sums{};
    for (Index p = 0; p < args.patches; ++p) {
      const Eight x = octet.load(args.x + (row * args.patches + p) * args.cols);
      for (int i = 0; i < 8; ++i) sums.at[i] += x.at[i];
    }
    octet.store(args.y + row * args.cols, sums);
    return {};
  }
};

}  // namespace

void patch_pool(const Context& context, const PatchPool& args) {
  const LaunchShape shape{.blocks = ceil_div(args.rows * args.classes * kWarpSize, kThreads), .threads = kThreads};
  with_function<Gelu>(args.activation,
                      [&](auto function) { launch(context, shape, patch_pool_kernel<decltype(function)>, args); });
}

void patch_pool_backward(const Context& context, const PatchPoolBackward& args) {
  with_function<Gelu>(args.activation, [&](auto function) {
    sum_columns(context, args.rows * args.patches, args.filters,
                are_aligned(args.filters, args.hidden, args.bias, args.d_hidden),
                PoolBackwardPass<decltype(function)>{args}, {args.d_bias, args.filters});
  });
}

void patch_sum(const Context& context, const PatchSum& args) {
  for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x, args.y), PatchSumPass{args});
}

}  // namespace switchyard::kernels::cuda
