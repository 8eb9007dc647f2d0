#pragma once

#include "kernels/cpu/vector.hpp"

namespace switchyard::kernels::cpu {

// The sum of term(i, at) for i in [first, end), where at(pointer) is what stands there: a float, or the Vector that
// begins there. The order of the additions depends on the count alone, and is four chains of vectors.
template <typename Term>
inline float sum_of_terms(Index first, Index end, const Term& term) {
  const auto at_vector = [](const float* from) { return load(from); };
  const auto at_float = [](const float* from) { return *from; };
  Vector sums[4] = {};
  Index i = first;
  for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[v] += term(i + v * kLanes, at_vector);
  }
  for (; i + kLanes <= end; i += kLanes) sums[0] += term(i, at_vector);
  float rest = 0;
  for (; i < end; ++i) rest += term(i, at_float);
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3]))[0] + rest;
}

}  // namespace switchyard::kernels::cpu
