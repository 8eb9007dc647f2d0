#include "io/disk.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/error.hpp"

namespace switchyard::io {
namespace {

// Opens a file or a folder; what else may have its name is refused. A pipe without a reader does not make it wait.
int open_descriptor(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0666);
  struct stat status {};
  if (fd < 0 && errno != ENXIO)
    fail("{}: cannot open: {}{}", path.string(), std::strerror(errno), errno == EISDIR ? ": move it away" : "");
  if (fd >= 0 && fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return fd;
  if (fd >= 0) ::close(fd);
  fail("{}: is no file but a device or a pipe: move it away", path.string());
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags) : fd_(open_descriptor(path, flags)) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

constexpr double kMegabyte = 1e6;

[[noreturn]] void fail_full(const std::filesystem::path& path, Index bytes, const char* reason) {
  fail("{}: no room for another {:.1f} MB ({}): free some space, or write to another disk", path.string(),
       static_cast<double>(bytes) / kMegabyte, reason);
}

}  // namespace

void reserve_space(const std::filesystem::path& path, Index begin, Index end, bool keep_length) {
  reserve_space(Descriptor(path, O_WRONLY), path, begin, end, keep_length);
}

void create_with_space(const std::filesystem::path& path, Index end, bool keep_length) {
  reserve_space(Descriptor(path, O_WRONLY | O_CREAT | O_NOFOLLOW), path, 0, end, keep_length);
}

void reserve_space(int fd, const std::filesystem::path& path, Index begin, Index end, bool keep_length) {
  if (end <= begin) return;
  // Going past this limit raises SIGXFSZ, which ends the program.
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      static_cast<rlim_t>(end) > limit.rlim_cur)
    fail_full(path, end - begin, "file size limit, see ulimit -f");
  int status = 0;
  do status = fallocate(fd, keep_length ? FALLOC_FL_KEEP_SIZE : 0, begin, end - begin);
  while (status != 0 && errno == EINTR);
  if (status == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) fail_full(path, end - begin, std::strerror(errno));
  struct statvfs volume {};
  if (fstatvfs(fd, &volume) == 0 &&
      static_cast<double>(volume.f_bavail) * static_cast<double>(volume.f_frsize) < static_cast<double>(end - begin))
    fail_full(path, end - begin, std::strerror(ENOSPC));
}

void release_reserved(const std::filesystem::path& path) {
  const Descriptor fd(path, O_WRONLY);
  struct stat status {};
  // Nothing is lost if this fails: the blocks go with the file.
  if (fstat(fd, &status) == 0 && ftruncate(fd, status.st_size) != 0) return;
}

bool is_at(int fd, const std::filesystem::path& path) {
  struct stat open {
  }, named{};
  if (fstat(fd, &open) != 0) return true;  // who writes to it will hear of that
  if (stat(path.c_str(), &named) != 0) return errno != ENOENT && errno != ENOTDIR;
  return open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

PlacedWriter::PlacedWriter(const std::filesystem::path& path)
    : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (fd_ < 0)
    fail("{}: cannot open: {} (is its folder one that all ranks share?)", path.string(), std::strerror(errno));
}

PlacedWriter::~PlacedWriter() { ::close(fd_); }

void PlacedWriter::write(Index offset, const void* data, Index bytes, const std::string& what) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd_, next, static_cast<std::size_t>(bytes), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("{}: cannot write {}: {}", path_.string(), what, std::strerror(written < 0 ? errno : EIO));
    next += written;
    offset += written;
    bytes -= written;
  }
}

void PlacedWriter::sync() {
  if (fsync(fd_) != 0) fail("{}: cannot sync to disk: {}", path_.string(), std::strerror(errno));
}

void sync_file(const std::filesystem::path& path) {
  const Descriptor fd(path, O_RDONLY);
  if (fsync(fd) != 0) fail("{}: cannot sync to disk: {}", path.string(), std::strerror(errno));
}

namespace {

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor fd(folder.empty() ? std::filesystem::path(".") : folder, O_RDONLY | O_DIRECTORY);
  // Some network file systems cannot sync a folder; they keep names in order by themselves.
  if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
    fail("{}: cannot sync to disk: {}", folder.string(), std::strerror(errno));
}

}  // namespace

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0)
    fail("{}: cannot be put into its place: {}: move away what is there", to.string(), std::strerror(errno));
  sync_folder(to.parent_path());
}

}  // namespace switchyard::io
