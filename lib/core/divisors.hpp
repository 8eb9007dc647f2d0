// Divisors, for messages that say which values would do.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "core/types.hpp"

namespace switchyard {

// The divisors of `number` nearest to `value` that `fits` allows, in words: "use KEY = 4 or 8".
template <typename Fits>
std::string nearest_divisors(std::string_view key, Index number, Index value, const Fits& fits) {
  const auto works = [&](Index divisor) { return number % divisor == 0 && fits(divisor); };
  Index below = std::min(value - 1, number), above = value + 1;
  while (below >= 1 && !works(below)) --below;
  while (above <= number && !works(above)) ++above;
  if (below < 1) return fmt::format("use {} = {}", key, above);
  if (above > number) return fmt::format("use {} = {}", key, below);
  return fmt::format("use {} = {} or {}", key, below, above);
}

inline std::string nearest_divisors(std::string_view key, Index number, Index value) {
  return nearest_divisors(key, number, value, [](Index) { return true; });
}

}  // namespace switchyard
