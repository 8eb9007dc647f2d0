#pragma once

#include <cstdint>
#include <vector>

#include "core/random.hpp"
#include "core/types.hpp"

namespace switchyard {

// A random permutation of 0 .. count-1, Fisher-Yates from the end; element i draws from its own word, row i of `key`,
// so the order needs no state.
std::vector<std::uint32_t> random_order(const RandomKey& key, Index count);

}  // namespace switchyard
