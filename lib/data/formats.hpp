// The file formats behind load_dataset: one reader each, private to this part.
#pragma once

#include <string>

#include "data/dataset.hpp"

namespace switchyard {

// How many of a split's `count` samples to read; limit 0: all.
inline Index limited(Index count, Index limit) { return limit > 0 && limit < count ? limit : count; }

// Labels lie in 0 .. classes-1, or `file` is wrong.
void check_labels(const Split& split, Index classes, const std::string& file);

// One sentence: how to come by the data of this kind, whose file or folder `path` is not there.
std::string how_to_get(const std::string& kind, const std::string& path);

// The files behind each, as load_dataset's path leads to them.
std::vector<std::string> idx_files(const std::string& path, const std::string& kind);
std::vector<std::string> cifar_files(const std::string& path, const std::string& kind);
// With those that links lead to.
std::vector<std::string> hdf5_files(const std::string& path);

Dataset load_idx(const std::string& path, const DataOptions& options);    // fashion-mnist, mnist
Dataset load_cifar(const std::string& path, const DataOptions& options);  // cifar10, cifar100
Dataset load_hdf5(const std::string& path, const DataOptions& options);
Dataset make_synthetic(const DataOptions& options);
Dataset make_clusters(const DataOptions& options);

}  // namespace switchyard
