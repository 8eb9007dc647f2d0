#include <algorithm>
#include <cmath>

#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

void tree_carry(const Context& context, const TreeCarry& args) {
  for_element_blocks(context, args.size, [&](Index first, Index end) {
    constexpr Index kChunk = 1024;  // out may be any of the inputs, so a chunk is summed apart
    alignas(64) float sums[kChunk];
    for (Index begin = first; begin < end; begin += kChunk) {
      const Index size = std::min(kChunk, end - begin);
      std::copy_n(args.last + begin, size, sums);
      for (int level = 0; level < args.num_earlier; ++level) {
        const float* earlier = args.earlier[static_cast<std::size_t>(level)] + begin;
#pragma omp simd
        for (Index i = 0; i < size; ++i) sums[i] = earlier[i] + sums[i];
      }
      std::copy_n(sums, size, args.out + begin);
    }
  });
}

void mean(const Context& context, const Mean& args) {
  const auto count = static_cast<float>(args.count);
  for_element_blocks(context, args.size, [&](Index first, Index end) {
    std::copy(args.x + first, args.x + end, args.mean + first);
    for (Index row = 1; row < args.count; ++row) {
      const float* x = args.x + row * args.size;
#pragma omp simd
      for (Index i = first; i < end; ++i) args.mean[i] += x[i];
    }
#pragma omp simd
    for (Index i = first; i < end; ++i) args.mean[i] /= count;
  });
}

Index count_not_finite(const float* x, Index size) {
  return std::count_if(x, x + size, [](float value) { return !std::isfinite(value); });
}

}  // namespace switchyard::kernels::cpu
