// What every part that opens HDF5 files needs: identifiers that close themselves, and HDF5's reasons for our messages.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include <hdf5.h>

#include "core/crash_guard.hpp"
#include "core/types.hpp"

namespace switchyard::h5 {

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

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// A file to read. Whatever its bytes are, reading it does not end the program without words.
class ReadFile : private CrashGuard, public Handle {
 public:
  explicit ReadFile(const std::string& path) : CrashGuard(path), path_(path) {}

  bool open(unsigned flags, hid_t access) {
    Handle::operator=(Handle(H5Fopen(path_.c_str(), flags, access), H5Fclose));
    return is_open();
  }

 private:
  std::string path_;
};

// Keeps HDF5 from printing its error stack: the reason goes into our own messages. Called by every function that opens
// a file.
void silence();

// File access without locks: several cluster file systems have none, and no file here has a second writer.
Handle unlocked_access();

// The innermost, most specific line of HDF5's error stack; the system's own words where it quotes them.
std::string last_message();

// Opens a dataset, which may lie in another file where an external link leads to one. Not open where there is none, or
// the link leads to a pipe or a device, for which HDF5 would wait.
Handle open_dataset(hid_t group, const std::string& name);

// Whether an open dataset's values lie in another file: external raw storage, or a virtual dataset.
bool is_elsewhere(hid_t dataset);

// The file that holds an open dataset, which an external link may have led to.
std::string name_of_file(hid_t dataset);

// The most bytes of values that the file can hold for an open dataset, whatever its shape claims: those that are stored
// in this file, times what a filter may have shrunk them by. 0 where they lie elsewhere.
double most_bytes(hid_t dataset);

// A whole number among an open object's attributes. nullopt: no such attribute, or of another type.
std::optional<Index> read_integer(hid_t object, const char* name);

}  // namespace switchyard::h5
