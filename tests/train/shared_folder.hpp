// A temporary folder that all ranks know, removed at the end.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "support/ranks.hpp"

namespace switchyard::testing {

class SharedFolder {
 public:
  SharedFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-train-XXXXXX").string();
    if (world_rank() == 0 && !mkdtemp(name.data())) fail("cannot create {}", name);
    MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, MPI_COMM_WORLD);
    path_ = name;
  }
  ~SharedFolder() {
    MPI_Barrier(MPI_COMM_WORLD);
    std::error_code ignored;
    if (world_rank() == 0) std::filesystem::remove_all(path_, ignored);
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace switchyard::testing
