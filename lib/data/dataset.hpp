// Labelled images in memory, and where they come from.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

struct Split {
  Index count = 0;
  std::vector<std::uint8_t> images;  // (count, height, width, channels)
  std::vector<std::int32_t> labels;  // (count), each in 0 .. classes-1
};

struct ImageShape {
  Index height = 0, width = 0, channels = 0, classes = 0;
};

struct Dataset {
  std::string name = {};
  Index height = 0, width = 0, channels = 0, classes = 0;
  Split train = {}, test = {};
};

// Fields as the keys of the configuration's [data].
struct DataOptions {
  std::string kind = "fashion-mnist";  // fashion-mnist | mnist | cifar10 | cifar100 | hdf5 | synthetic
  std::string path = {};               // folder, or HDF5 file; empty: default_path(kind)
  Index limit = 0;                     // above 0: the first so many samples of each split
  Index synthetic_samples = 1024, synthetic_size = 28, synthetic_channels = 1, synthetic_classes = 10;
  std::uint64_t seed = 1;  // of synthetic data
};

// Reads, checks and returns both splits. Throws Error naming the file (and sample) that is missing, truncated, corrupt
// or out of range.
Dataset load_dataset(const DataOptions& options);

// The shape that a kind of data always has, without opening a file; nothing for hdf5, where the file decides.
std::optional<ImageShape> known_shape(const DataOptions& options);

// Where data lie when no path is given; empty for kinds without such a place.
std::string default_path(const std::string& kind);

// What tells one data set from another, for files: `data` (shape and classes), `data_train` and `data_test` (number of
// samples, XXH3-128 over images and labels).
std::map<std::string, std::string> data_attributes(const Dataset& dataset);

// The order in which an epoch visits `count` samples: a random permutation, a function of its arguments only.
std::vector<std::uint32_t> epoch_order(std::uint64_t seed, Index epoch, Index count);

}  // namespace switchyard
