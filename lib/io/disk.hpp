// The file system beneath HDF5. HDF5 1.10 cannot close a file whose metadata does not fit on the disk any more, so room
// is reserved before it writes: a full disk is then met here, with nothing half done.
#pragma once

#include <filesystem>
#include <string>

#include "core/types.hpp"

namespace switchyard::io {

// Makes sure that bytes [begin, end) of a file can be written. Its length grows to `end`, or stays as it is
// (keep_length). Where the file system cannot reserve, its free space is looked at instead.
// Fails on a full disk, an exceeded quota or file size limit, no permission, or where there is no such file.
void reserve_space(const std::filesystem::path& path, Index begin, Index end, bool keep_length = false);
// The same of an open file; `path` is its name for messages.
void reserve_space(int fd, const std::filesystem::path& path, Index begin, Index end, bool keep_length);
// The same of bytes [0, end), making the file where it is not there. Through a link no file is made or written.
void create_with_space(const std::filesystem::path& path, Index end, bool keep_length = false);

// Gives back what was reserved beyond the file's length.
void release_reserved(const std::filesystem::path& path);

// Whether the name still leads to the open file: nobody has removed, renamed or replaced it.
bool is_at(int fd, const std::filesystem::path& path);

// Writes into a file that is there, at any place, as several ranks do at once.
class PlacedWriter {
 public:
  explicit PlacedWriter(const std::filesystem::path& path);
  ~PlacedWriter();
  PlacedWriter(const PlacedWriter&) = delete;
  PlacedWriter& operator=(const PlacedWriter&) = delete;
  // `what` is what the bytes are, for the message.
  void write(Index offset, const void* data, Index bytes, const std::string& what);
  void sync();

 private:
  std::filesystem::path path_;
  int fd_;
};

// Waits until a file's data are on the disk.
void sync_file(const std::filesystem::path& path);
// Gives a file its name, in place of what had it, and waits until that is on the disk.
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace switchyard::io
