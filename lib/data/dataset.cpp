#include "data/dataset.hpp"

#include <xxhash.h>

#include <filesystem>
#include <memory>
#include <new>

#include "core/error.hpp"
#include "core/files.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

std::string path_of(const DataOptions& options) {
  return options.path.empty() ? default_path(options.kind) : options.path;
}

Dataset load_kind(const DataOptions& options, const std::string& path) {
  const std::string& kind = options.kind;
  if (kind == "synthetic") return make_synthetic(options);
  if (kind == "clusters") return make_clusters(options);
  if (kind == "fashion-mnist" || kind == "mnist") return load_idx(path, options);
  if (kind == "cifar10" || kind == "cifar100") return load_cifar(path, options);
  if (kind == "hdf5") return load_hdf5(path, options);
  fail("data.kind = {} is not known: use fashion-mnist, mnist, cifar10, cifar100, hdf5, synthetic or clusters.", kind);
}

std::string describe_split(const Split& split) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(state.get());
  const auto add = [&](const auto& values) {
    XXH3_128bits_update(state.get(), values.data(), values.size() * sizeof(values[0]));
  };
  add(split.images), add(split.features), add(split.labels), add(split.clusters);
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return fmt::format("{} samples, XXH3-128 {:016x}{:016x}", split.count, hash.high64, hash.low64);
}

}  // namespace

std::map<std::string, std::string> data_attributes(const Dataset& dataset) {
  std::map<std::string, std::string> attributes = {
      {"data", fmt::format("{}x{}x{} {} classes", dataset.height, dataset.width, dataset.channels, dataset.classes)},
      {"data_train", describe_split(dataset.train)},
      {"data_test", describe_split(dataset.test)}};
  if (dataset.validation.count > 0) attributes["data_validation"] = describe_split(dataset.validation);
  return attributes;
}

Dataset load_dataset(const DataOptions& options) {
  require_data(options);
  const std::string path = path_of(options);
  try {
    Dataset data = load_kind(options, path);
    if (options.validation > 0) split_validation(data, options.validation, options.validation_seed);
    return data;
  } catch (const std::bad_alloc&) {
    fail("{}: this data does not fit into memory: set data.limit to take only the first samples.",
         path.empty() ? "data.kind = " + options.kind : path);
  }
}

std::vector<std::string> data_files(const DataOptions& options) {
  require_data(options);
  const std::string& kind = options.kind;
  if (kind == "fashion-mnist" || kind == "mnist") return idx_files(path_of(options), kind);
  if (kind == "cifar10" || kind == "cifar100") return cifar_files(path_of(options), kind);
  if (kind == "hdf5") return hdf5_files(path_of(options));
  return {};
}

std::optional<ImageShape> known_shape(const DataOptions& options) {
  if (options.kind == "fashion-mnist" || options.kind == "mnist") return ImageShape{28, 28, 1, 10};
  if (options.kind == "cifar10") return ImageShape{32, 32, 3, 10};
  if (options.kind == "cifar100") return ImageShape{32, 32, 3, 100};
  if (options.kind == "clusters") return ImageShape{4, 50, 1, 2};
  if (options.kind == "synthetic")
    return ImageShape{options.synthetic_size, options.synthetic_size, options.synthetic_channels,
                      options.synthetic_classes};
  return std::nullopt;
}

std::string default_path(const std::string& kind) {
  if (kind == "fashion-mnist") return "/usr/share/datasets/fashion-mnist";
  if (kind == "mnist" || kind == "cifar10" || kind == "cifar100") return "data/" + kind;
  return "";
}

std::string how_to_get(const std::string& kind, const std::string& path) {
  const std::string usual = default_path(kind);
  std::error_code ignored;
  if (!path.starts_with(usual) && std::filesystem::is_directory(usual, ignored))
    return fmt::format("Leave data.path empty to use {}, or give the folder that holds the files.", usual);
  if (kind == "fashion-mnist")
    return "Install Debian's package dataset-fashion-mnist and leave data.path empty, or give the folder that holds "
           "the files as data.path.";
  if (kind == "mnist")
    return "The four IDX files are on the MNIST database's own page and its mirrors: give their folder as data.path.";
  return fmt::format(
      "Unpack cifar-{}-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, and give the folder as "
      "data.path.",
      kind == "cifar10" ? 10 : 100);
}

void require_data(const DataOptions& options) {
  const std::string& kind = options.kind;
  if (kind == "synthetic" || kind == "clusters") return;
  const std::string path = path_of(options);
  if (path.empty()) fail_usage("data.kind = {} needs data.path: give the file that holds the data.", kind);
  std::error_code ignored;
  if (const std::string reason = kind == "hdf5" ? why_no_file(path) : ""; !reason.empty())
    fail_usage("{}: {}; data.kind = hdf5 needs data.path to name an HDF5 file.", path, reason);
  if (!default_path(kind).empty() && !std::filesystem::is_directory(path, ignored))
    fail_usage("{}: {}; data.kind = {} looks for its files there. {}", path,
               std::filesystem::exists(path, ignored) ? "is no folder" : "there is no such folder", kind,
               how_to_get(kind, path));
}

void check_labels(const Split& split, Index classes, const std::string& file) {
  for (std::size_t i = 0; i < split.labels.size(); ++i) {
    const std::int32_t label = split.labels[i];
    if (label < 0 || label >= classes)
      fail("{}: label {} of sample {} is out of range: {} classes allow 0 to {}.", file, label, i, classes,
           classes - 1);
  }
}

}  // namespace switchyard
