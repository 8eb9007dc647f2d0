// A little more C++ over HDF5's C interface, for this part only: results that are checked, strings and numbers as
// attributes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "core/h5.hpp"
#include "core/types.hpp"

namespace switchyard::h5 {

// Passes a result through, or fails with "PATH: cannot ACTION: HDF5's reason".
template <typename Result>
Result check(Result result, const std::filesystem::path& path, std::string_view action) {
  if (result < 0) fail("{}: cannot {}: {}", path.string(), action, last_message());
  return result;
}

// As check(), of reading a file that was whole once.
template <typename Result>
Result check_read(Result result, const std::filesystem::path& path, std::string_view action) {
  if (result < 0) fail("{}: is damaged: cannot {}: {}", path.string(), action, last_message());
  return result;
}

// File access without locks, for files between these versions of HDF5's format.
Handle file_access(H5F_libver_t low, H5F_libver_t high);

// The file descriptor of an open file; -1 where there is none.
int descriptor_of(const Handle& file);

// Closes a file that was opened for writing and cannot be written. HDF5 1.10 cannot give such a file up: closing tries
// to write again, fails, and the program crashes when it ends. So its descriptor is first pointed at an empty file in
// memory: closing then succeeds, and the disk keeps what it had. Objects within the file are to be closed after this.
void abandon(Handle& file);

// Fixed-length UTF-8, `bytes` long, padded with zeros.
Handle string_type(std::size_t bytes);
inline constexpr std::size_t kMaxAttributeBytes = 60000;  // HDF5's limit is 64 KiB with its own header

// Attributes of an open object. `where` is the file, for messages.
void write_attribute(hid_t object, const std::string& name, std::string_view text, const std::filesystem::path& where,
                     std::size_t capacity = 1);
void write_attribute(hid_t object, const std::string& name, std::int64_t value, const std::filesystem::path& where);
// nullopt: no such attribute, or of another type.
std::optional<std::string> read_text(hid_t object, const char* name);
// As read_text; fails where the attributes cannot be read.
std::optional<std::string> read_text(hid_t object, const char* name, const std::filesystem::path& where);
std::vector<std::string> attribute_names(hid_t object);

// A scalar string dataset, of any length.
void write_text_dataset(hid_t file, const char* name, std::string_view text, const std::filesystem::path& where);
std::optional<std::string> read_text_dataset(hid_t file, const char* name);

// Shape of an open dataset; empty for a scalar or where it cannot be read.
std::vector<Index> shape_of(hid_t dataset);

}  // namespace switchyard::h5
