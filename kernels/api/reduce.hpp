// Pieces of the reduction tree, and what evaluation needs of experts.
#pragma once

#include <array>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

constexpr int kMaxTreeLevels = 24;

// out = earlier[n-1] + (... + (earlier[1] + (earlier[0] + last))): a carry through the levels of a binary counter.
struct TreeCarry {
  Index size = 0;
  int num_earlier = 0;  // 0: out is a copy of last
  std::array<const float*, kMaxTreeLevels> earlier{};
  const float* last = nullptr;
  float* out = nullptr;  // may be last or any of earlier
};
void tree_carry(const Context& context, const TreeCarry& args);

// mean[i] = (x[0, i] + x[1, i] + ... in this order) / count
struct Mean {
  Index count = 0, size = 0;
  const float* x = nullptr;  // (count, size)
  float* mean = nullptr;     // (size)
};
void mean(const Context& context, const Mean& args);

// How many elements are NaN or infinite; looks into the array from the host, so only for a run that has failed.
Index count_not_finite(const Context& context, const float* x, Index size);

}  // namespace switchyard::kernels
