#include <algorithm>

#include "core/random.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

// Values of RandomKey::step: patterns and the two splits draw from sequences of their own.
enum Sequence : std::uint32_t { kPatterns, kTrain, kTest };

// Byte i of a row, uniform over 0 .. 255.
int random_byte(const RandomKey& key, std::uint32_t row, Index i) {
  const auto words = random_words(key, row, static_cast<std::uint32_t>(i / 16));
  return static_cast<int>((words[static_cast<std::size_t>(i / 4 % 4)] >> (8 * (i % 4))) & 255u);
}

// Sample i shows class i mod classes: the class's random pattern at half contrast, plus uniform noise of the same size.
Split make_split(const DataOptions& options, Sequence sequence, Index count) {
  const RandomKey patterns{.seed = options.seed, .purpose = Purpose::kSynthetic, .layer = 0, .step = kPatterns};
  const RandomKey noise{.seed = options.seed, .purpose = Purpose::kSynthetic, .layer = 0, .step = sequence};
  const Index image_bytes = options.synthetic_size * options.synthetic_size * options.synthetic_channels;
  Split split;
  split.count = limited(count, options.limit);
  split.images.reserve(static_cast<std::size_t>(split.count * image_bytes));
  for (Index sample = 0; sample < split.count; ++sample) {
    const Index label = sample % options.synthetic_classes;
    split.labels.push_back(static_cast<std::int32_t>(label));
    for (Index i = 0; i < image_bytes; ++i) {
      const int pattern = random_byte(patterns, static_cast<std::uint32_t>(label), i);
      const int disturbance = random_byte(noise, static_cast<std::uint32_t>(sample), i);
      split.images.push_back(static_cast<std::uint8_t>((pattern + disturbance) / 2));
    }
  }
  return split;
}

}  // namespace

Dataset make_synthetic(const DataOptions& options) {
  return {.name = "synthetic",
          .height = options.synthetic_size,
          .width = options.synthetic_size,
          .channels = options.synthetic_channels,
          .classes = options.synthetic_classes,
          .train = make_split(options, kTrain, options.synthetic_samples),
          .test = make_split(options, kTest, std::max<Index>(1, options.synthetic_samples / 4))};
}

}  // namespace switchyard
