// Labelled images, or samples of real numbers, in memory, and where they come from.
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
  std::vector<std::uint8_t> images;    // (count, height, width, channels)
  std::vector<std::int32_t> labels;    // (count), each in 0 .. classes-1
  std::vector<float> features;         // instead of images, where samples are real numbers
  std::vector<std::int32_t> clusters;  // (count) that a sample was drawn from; empty where nobody knows
};

struct ImageShape {
  Index height = 0, width = 0, channels = 0, classes = 0;
};

struct Dataset {
  std::string name = {};
  Index height = 0, width = 0, channels = 0, classes = 0;
  Split train = {}, test = {};
  Split validation = {};  // no samples where none is asked for
};

// Fields as the keys of the configuration's [data].
struct DataOptions {
  std::string kind = "fashion-mnist";  // fashion-mnist | mnist | cifar10 | cifar100 | hdf5 | synthetic | clusters
  std::string path = {};               // folder, or HDF5 file; empty: default_path(kind)
  Index limit = 0;                     // above 0: the first so many samples of each split
  bool test_only = false;              // leaves the training split's files alone; data that are generated have it
  Index synthetic_samples = 1024, synthetic_size = 28, synthetic_channels = 1, synthetic_classes = 10;
  Index clusters_setting = 1;  // of clusters: 1 .. 4
  std::uint64_t seed = 1;      // of synthetic data and clusters
  double validation = 0;       // this part of the training split becomes a validation split
  std::uint64_t validation_seed = 1;
};

// Reads, checks and returns the splits. Throws Error naming the file (and sample) that is missing, truncated, corrupt
// or out of range.
Dataset load_dataset(const DataOptions& options);

// Fails with kUsage where the folder or file that holds the data is not there. It opens no file.
void require_data(const DataOptions& options);

// The files that load_dataset would read, where the folder or file is there; none where data are generated. Throws as
// load_dataset where one is missing.
std::vector<std::string> data_files(const DataOptions& options);

// The shape that a kind of data always has, without opening a file; nothing for hdf5, where the file decides.
std::optional<ImageShape> known_shape(const DataOptions& options);

// Where data lie when no path is given; empty for kinds without such a place.
std::string default_path(const std::string& kind);

// How many of `count` training samples become validation samples: the nearest whole number. Fails where that leaves
// none on either side, though fraction is above 0.
Index num_validation_samples(double fraction, Index count);

// Moves num_validation_samples() of data.train to data.validation: the first of a random order, a function of seed and
// count only. Both keep their samples in the order they had.
void split_validation(Dataset& data, double fraction, std::uint64_t seed);

// What tells one data set from another, for files: `data` (shape and classes), `data_train`, `data_test` and, where
// there is one, `data_validation` (number of samples, XXH3-128 over images or features, labels and clusters).
std::map<std::string, std::string> data_attributes(const Dataset& dataset);

// The order in which an epoch visits `count` samples: a random permutation, a function of its arguments only.
std::vector<std::uint32_t> epoch_order(std::uint64_t seed, Index epoch, Index count);

}  // namespace switchyard
