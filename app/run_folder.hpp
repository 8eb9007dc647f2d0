// The folder that a run writes to. One run at a time: rank 0 holds a lock on it from lock() to the end of the process.
#pragma once

#include <filesystem>
#include <string>

#include "core/types.hpp"

namespace switchyard {

class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path results() const { return path_ / "results.h5"; }
  std::filesystem::path checkpoint(Index step) const;

  // On rank 0. Creates the folder and takes its lock; fails where it cannot be written or another run holds it.
  void lock();
  // On rank 0, locked. Leaves the folder free for a new run: removes an earlier one, or fails where it may not. It also
  // fails where that would remove `start`, the checkpoint that the new run begins with or goes on from, and that was
  // `named` so: "train.start = FILE".
  void make_free(bool overwrite, const std::string& start, const std::string& named) const;
  // On rank 0, locked: fails where there is a checkpoint of a later step, which a run that ends with `step` would
  // remove.
  void require_none_after(Index step) const;
  bool holds_a_run() const;

 private:
  std::filesystem::path path_;
  int lock_fd_ = -1;
};

}  // namespace switchyard
