#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "data/dataset.hpp"
#include "data/order.hpp"

namespace switchyard {

Index num_validation_samples(double fraction, Index count) {
  if (fraction <= 0) return 0;
  const auto chosen = static_cast<Index>(std::llround(fraction * static_cast<double>(count)));
  if (chosen == 0 || chosen >= count)
    fail_usage("data.validation = {}: of {} training samples none would be left for {}: choose another fraction, or 0.",
               fraction, count, chosen == 0 ? "validation" : "training");
  return chosen;
}

namespace {

// Moves the chosen rows of `size` elements from one array to the other; both keep theirs in order. Of an empty array
// there is nothing to move.
template <typename T>
void move_rows(const std::vector<bool>& is_chosen, Index size, std::vector<T>& from, std::vector<T>& to) {
  if (from.empty()) return;
  auto kept = from.begin(), row = from.begin();
  for (std::size_t i = 0; i < is_chosen.size(); ++i, row += size) {
    if (is_chosen[i])
      to.insert(to.end(), row, row + size);
    else
      kept = kept == row ? row + size : std::copy(row, row + size, kept);
  }
  from.erase(kept, from.end());
}

}  // namespace

void split_validation(Dataset& data, double fraction, std::uint64_t seed) {
  const Index chosen = num_validation_samples(fraction, data.train.count);
  // Epochs are shuffled with layer 0.
  const RandomKey key{.seed = seed, .purpose = Purpose::kShuffle, .layer = 1, .step = 0};
  const std::vector<std::uint32_t> order = random_order(key, data.train.count);
  std::vector<bool> is_chosen(order.size());
  for (Index i = 0; i < chosen; ++i) is_chosen[order[static_cast<std::size_t>(i)]] = true;

  Split& train = data.train;
  Split& validation = data.validation;
  const Index size = data.height * data.width * data.channels;
  move_rows(is_chosen, size, train.images, validation.images);
  move_rows(is_chosen, size, train.features, validation.features);
  move_rows(is_chosen, 1, train.labels, validation.labels);
  move_rows(is_chosen, 1, train.clusters, validation.clusters);
  validation.count = chosen;
  train.count -= chosen;
}

}  // namespace switchyard
