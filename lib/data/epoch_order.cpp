#include <limits>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "data/order.hpp"

namespace switchyard {

std::vector<std::uint32_t> random_order(const RandomKey& key, Index count) {
  if (count < 0 || count > Index{std::numeric_limits<std::uint32_t>::max()})
    fail("random_order: {} samples are more than 32-bit indices can tell apart.", count);
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0u);
  for (std::uint32_t i = static_cast<std::uint32_t>(count); i-- > 1;) {
    const std::uint32_t word = random_words(key, i, 0)[0];
    std::swap(order[i], order[to_below(word, i + 1)]);
  }
  return order;
}

std::vector<std::uint32_t> epoch_order(std::uint64_t seed, Index epoch, Index count) {
  return random_order(
      {.seed = seed, .purpose = Purpose::kShuffle, .layer = 0, .step = static_cast<std::uint32_t>(epoch)}, count);
}

}  // namespace switchyard
