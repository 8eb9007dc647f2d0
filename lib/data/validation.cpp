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

void split_validation(Dataset& data, double fraction, std::uint64_t seed) {
  const Index chosen = num_validation_samples(fraction, data.train.count);
  // Epochs are shuffled with layer 0.
  const RandomKey key{.seed = seed, .purpose = Purpose::kShuffle, .layer = 1, .step = 0};
  const std::vector<std::uint32_t> order = random_order(key, data.train.count);
  std::vector<bool> is_chosen(order.size());
  for (Index i = 0; i < chosen; ++i) is_chosen[order[static_cast<std::size_t>(i)]] = true;

  const Index image_bytes = data.height * data.width * data.channels;
  Split& train = data.train;
  Split& validation = data.validation;
  validation.count = chosen;
  validation.images.reserve(static_cast<std::size_t>(chosen * image_bytes));
  validation.labels.reserve(static_cast<std::size_t>(chosen));
  Index kept = 0;
  for (Index i = 0; i < train.count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto image = train.images.begin() + i * image_bytes;
    if (is_chosen[at]) {
      validation.images.insert(validation.images.end(), image, image + image_bytes);
      validation.labels.push_back(train.labels[at]);
      continue;
    }
    if (kept != i) std::copy(image, image + image_bytes, train.images.begin() + kept * image_bytes);
    train.labels[static_cast<std::size_t>(kept++)] = train.labels[at];
  }
  train.count = kept;
  train.images.resize(static_cast<std::size_t>(kept * image_bytes));
  train.labels.resize(static_cast<std::size_t>(kept));
}

}  // namespace switchyard
