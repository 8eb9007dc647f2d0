// Loading a data set from the fuzzer's files, and what must hold of one that is loaded.
#pragma once

#include "data/dataset.hpp"
#include "fuzz/harness.hpp"

namespace switchyard::fuzz {

inline void check(const Dataset& data, const Split& split) {
  require(std::ssize(split.labels) == split.count, "every sample has a label");
  require(std::ssize(split.images) == split.count * data.height * data.width * data.channels, "and an image");
  for (const std::int32_t label : split.labels)
    require(label >= 0 && label < data.classes, "labels are below the number of classes");
}

// Bits of `choices`: the test split alone, one sample of each split, half of the training split for validation.
inline void load(DataOptions options, unsigned choices) {
  options.test_only = choices & 1;
  options.limit = choices & 2 ? 1 : 0;
  options.validation = choices & 4 ? 0.5 : 0;
  if (options.test_only) options.validation = 0;
  const Dataset data = load_dataset(options);
  if (!options.test_only) check(data, data.train);
  check(data, data.validation);
  check(data, data.test);
  data_attributes(data);
}

}  // namespace switchyard::fuzz
