// All arrays of a checkpoint, whole, on one rank.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "io/checkpoint.hpp"

namespace switchyard::testing {

class CheckpointArrays {
 public:
  explicit CheckpointArrays(const std::filesystem::path& path) {
    for (const io::ArraySummary& array : io::describe_checkpoint(path).arrays) {
      Index size = 1;
      for (Index extent : array.shape) size *= extent;
      values_.emplace_back(static_cast<std::size_t>(size));
      slices_.push_back({array.name, array.shape, array.per_expert, 0, array.shape[0], values_.back().data(), true});
    }
    info_ = io::load_checkpoint(*make_local_communicator(), path, slices_);
  }

  const std::vector<std::vector<float>>& all() const { return values_; }
  const io::CheckpointInfo& info() const { return info_; }

  std::vector<float>& values(const std::string& name) {
    for (std::size_t i = 0; i < slices_.size(); ++i)
      if (slices_[i].name == name || slices_[i].name == "/" + name) return values_[i];
    fail("no array {} in the checkpoint", name);
  }

  void save(const std::filesystem::path& path) const {
    io::save_checkpoint(*make_local_communicator(), path, info_, slices_);
  }

 private:
  std::vector<std::vector<float>> values_;
  std::vector<io::ArraySlice> slices_;
  io::CheckpointInfo info_;
};

}  // namespace switchyard::testing
