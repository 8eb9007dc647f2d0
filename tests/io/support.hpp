// A folder of its own for each test, and a small model's arrays, cut into slices as ranks hold them.
#pragma once

#include <stdlib.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>

#include "comm/mpi.hpp"
#include "core/error.hpp"
#include "io/checkpoint.hpp"

namespace switchyard::io::testing {

inline int rank_in(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

inline int size_of(MPI_Comm comm) {
  int size = 1;
  MPI_Comm_size(comm, &size);
  return size;
}

// A temporary folder that all ranks of `comm` know, removed at the end. MPI_COMM_NULL: this process's own.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(MPI_Comm comm = MPI_COMM_NULL) : comm_(comm) {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-io-XXXXXX").string();
    if (comm == MPI_COMM_NULL || rank_in(comm) == 0) {
      if (!mkdtemp(name.data())) throw Error("cannot create " + name);
    }
    if (comm != MPI_COMM_NULL) MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, comm);
    path_ = name;
  }
  ~TemporaryFolder() {
    if (comm_ != MPI_COMM_NULL) MPI_Barrier(comm_);
    std::error_code ignored;
    if (comm_ == MPI_COMM_NULL || rank_in(comm_) == 0) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  MPI_Comm comm_;
  std::filesystem::path path_;
};

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// The first `count` ranks of the world; MPI_COMM_NULL on the others.
class FirstRanks {
 public:
  explicit FirstRanks(int count) {
    const int rank = rank_in(MPI_COMM_WORLD);
    MPI_Comm_split(MPI_COMM_WORLD, rank < count ? 0 : MPI_UNDEFINED, rank, &comm_);
  }
  ~FirstRanks() {
    if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
  }
  FirstRanks(const FirstRanks&) = delete;
  FirstRanks& operator=(const FirstRanks&) = delete;
  MPI_Comm comm() const { return comm_; }
  bool has_me() const { return comm_ != MPI_COMM_NULL; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

// Three arrays: one dense (13, 7), one of experts (8, 5, 3), and an optimiser's moment of the latter.
inline constexpr Index kExperts = 8;

struct Arrays {
  std::vector<std::vector<float>> storage;
  std::vector<ArraySlice> slices;

  // This rank's part: experts [first, first + count). Values follow from array and element; `filled` false leaves -1.
  Arrays(Index first, Index count, bool filled, Index rows = 5) {
    add({"/parameters/blocks.0/weight", {13, 7}, false, 0, 13, nullptr, true}, filled);
    add({"/parameters/blocks.1/experts", {kExperts, rows, 3}, true, first, count, nullptr, true}, filled);
    add({"/optimizer/first_moment/blocks.1/experts", {kExperts, rows, 3}, true, first, count, nullptr, true}, filled);
  }

  static float value(std::size_t array, Index element) {
    return static_cast<float>(array + 1) + 0.001f * static_cast<float>(element);
  }

  // Elements that are not what `filled` would have put there.
  Index num_wrong() const {
    Index wrong = 0;
    for (std::size_t a = 0; a < slices.size(); ++a)
      for (std::size_t i = 0; i < storage[a].size(); ++i)
        wrong += storage[a][i] != value(a, offset(slices[a]) + Index(i));
    return wrong;
  }

 private:
  static Index row_elements(const ArraySlice& slice) {
    Index product = 1;
    for (std::size_t d = 1; d < slice.shape.size(); ++d) product *= slice.shape[d];
    return product;
  }
  static Index offset(const ArraySlice& slice) { return slice.first * row_elements(slice); }
  void add(ArraySlice slice, bool filled) {
    std::vector<float> values(static_cast<std::size_t>(slice.count * row_elements(slice)), -1.0f);
    if (filled)
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(slices.size(), offset(slice) + Index(i));
    storage.push_back(std::move(values));
    slice.data = storage.back().data();
    slices.push_back(std::move(slice));
  }
};

// Experts in equal parts over the ranks; rank 0 writes the dense array.
inline Arrays arrays_of_rank(MPI_Comm comm, bool filled, Index rows = 5) {
  const Index each = kExperts / size_of(comm), rank = rank_in(comm);
  Arrays arrays(rank * each, each, filled, rows);
  arrays.slices[0].writes = rank == 0;
  return arrays;
}

constexpr Index kTimeout = 60;  // seconds; a test that hangs fails by then

// Collective over `comm`.
inline void save_checkpoint(MPI_Comm comm, const std::filesystem::path& path, const CheckpointInfo& info,
                            std::span<const ArraySlice> slices) {
  io::save_checkpoint(*make_mpi_communicator(comm, kTimeout), path, info, slices);
}
inline CheckpointInfo load_checkpoint(MPI_Comm comm, const std::filesystem::path& path,
                                      std::span<const ArraySlice> slices) {
  return io::load_checkpoint(*make_mpi_communicator(comm, kTimeout), path, slices);
}

inline CheckpointInfo some_info() {
  return {1234, "[run]\nname = café\n", "0123456789abcdef0123456789abcdef", {{"version", "0.1.0"}, {"empty", ""}}};
}

// The message of the Error that `body` throws; empty where it throws none.
template <typename Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// What a python program with h5py prints; nullopt where there is no such python.
inline std::optional<std::string> h5py(const std::string& program) {
  if (std::system("/usr/bin/python3 -c 'import h5py' 2>/dev/null") != 0) return std::nullopt;
  FILE* pipe = popen(("/usr/bin/python3 -c '" + program + "' 2>&1").c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const std::size_t count = fread(buffer, 1, sizeof buffer, pipe)) output.append(buffer, count);
  pclose(pipe);
  return output;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace switchyard::io::testing
