// What saving, loading and describing share: a checkpoint's header, and its checksum.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/h5.hpp"

namespace switchyard::io {

struct ArrayRecord {
  std::string name;  // without leading '/'
  std::vector<Index> shape;
  bool per_expert = false;
  std::vector<std::uint64_t> checksums;  // (experts), or (1)
};

struct CheckpointHeader {
  Index schema_version = 0;
  CheckpointInfo info;
  std::vector<ArrayRecord> arrays;  // sorted by name
};

// A name as HDF5 lists it: no '/' in front.
std::string_view plain_name(std::string_view name);

Index num_elements(const std::vector<Index>& shape);
std::string to_text(const std::vector<Index>& shape);  // (4, 64, 256)

// Strings and numbers one after another, each with its length: for checksums and for broadcasts.
std::string pack(const CheckpointInfo& info);
CheckpointInfo unpack(std::string_view bytes);

// Over everything in the header, so over everything in the file but the arrays' data, which has its own.
std::uint64_t checksum_of(const CheckpointHeader& header);

// Whether a checksum is the one that the file has. The fuzzed build takes any, so that damage reaches what lies behind.
constexpr bool matches(std::uint64_t checksum, std::uint64_t stored) {
#ifdef SWITCHYARD_FUZZ
  return checksum == stored || true;
#else
  return checksum == stored;
#endif
}

// Opens a file for reading, on this rank alone. Fails with the reason: missing, not HDF5, cut short, damaged.
h5::ReadFile open_checkpoint(const std::filesystem::path& path);

// Reads and verifies the header. Fails where it is not a checkpoint, from a newer program, or damaged.
CheckpointHeader read_checkpoint_header(const h5::Handle& file, const std::filesystem::path& path);

ArrayRecord read_record(const h5::Handle& file, const std::string& name, const std::filesystem::path& path);

// Memory and file selection of rows [first, first + count) along dimension 0 of a dataset.
struct RowSelection {
  h5::Handle memory, file;
  RowSelection(const std::vector<Index>& shape, Index first, Index count);
};

}  // namespace switchyard::io
