#pragma once

#include <cstdint>

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

// chosen[0 .. count): the indices of [first, end) with the largest key(i), largest first, the lower where equal. Where
// keys are NaN they are still different indices of that range, which holds at least `count`.
template <typename Key>
inline void choose_largest(Index first, Index end, Index count, const Key& key, std::int32_t* chosen) {
  if (count == 1) {
    Index best = first;
    for (Index i = first + 1; i < end; ++i) best = key(i) > key(best) ? i : best;
    chosen[0] = static_cast<std::int32_t>(best);
    return;
  }
  Index made = 0;
  for (Index i = first; i < end; ++i) {
    const float own = key(i);
    if (made == count && !(own > key(chosen[count - 1]))) continue;
    Index place = made < count ? made++ : count - 1;
    for (; place > 0 && own > key(chosen[place - 1]); --place) chosen[place] = chosen[place - 1];
    chosen[place] = static_cast<std::int32_t>(i);
  }
}

}  // namespace switchyard::kernels::cpu
