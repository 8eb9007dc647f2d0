// A little C++ over HDF5's C interface, for this part only: identifiers that close themselves, results that are
// checked, strings and numbers as attributes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <hdf5.h>

#include "core/error.hpp"
#include "core/types.hpp"

namespace switchyard::io::h5 {

// Owns one identifier.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      close();
      id_ = std::exchange(other.id_, -1);
      close_ = other.close_;
    }
    return *this;
  }
  ~Handle() { close(); }

  operator hid_t() const { return id_; }
  bool is_open() const { return id_ >= 0; }
  // Negative on failure, as HDF5's own calls.
  herr_t close() { return id_ >= 0 ? close_(std::exchange(id_, -1)) : 0; }
  // Gives the identifier up without closing it.
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// Keeps HDF5 from printing its error stack; called by every public function of this part.
void silence();

// The innermost, most specific line of HDF5's error stack; the system's own words where it quotes them.
std::string last_message();

// Passes a result through, or fails with "PATH: cannot ACTION: HDF5's reason".
template <typename Result>
Result check(Result result, const std::filesystem::path& path, std::string_view action) {
  if (result < 0) fail("{}: cannot {}: {}", path.string(), action, last_message());
  return result;
}

// File access without locks: several cluster file systems have none, and no file here has a second writer.
Handle file_access(H5F_libver_t low, H5F_libver_t high);

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
std::optional<std::int64_t> read_integer(hid_t object, const char* name);
std::vector<std::string> attribute_names(hid_t object);

// A scalar string dataset, of any length.
void write_text_dataset(hid_t file, const char* name, std::string_view text, const std::filesystem::path& where);
std::optional<std::string> read_text_dataset(hid_t file, const char* name);

// Shape of an open dataset; empty for a scalar or where it cannot be read.
std::vector<Index> shape_of(hid_t dataset);

}  // namespace switchyard::io::h5
