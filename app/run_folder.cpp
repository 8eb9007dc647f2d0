#include "app/run_folder.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.hpp"
#include "io/checkpoint.hpp"
#include "io/results.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// "HOST, process PID", as the holder of a lock wrote it; it may not have come to that yet, or had no room on the disk.
std::string holder_of(int fd) {
  char text[300] = "";
  const ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
  return length > 0 ? std::string(text, static_cast<std::size_t>(length)) : "a process that has not said who it is";
}

void write_holder(int fd) {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  const std::string text = fmt::format("{}, process {}", host, getpid());
  // It is there for the message alone: on a full disk the lock holds without it.
  if (ftruncate(fd, 0) != 0 || pwrite(fd, text.data(), text.size(), 0) < 0) return;
}

}  // namespace

RunFolder::~RunFolder() {
  if (lock_fd_ >= 0) close(lock_fd_);
}

fs::path RunFolder::checkpoint(Index step) const { return io::checkpoint_path(path_, step); }

void RunFolder::lock() {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error || access(path_.c_str(), W_OK) != 0)
    fail("run.out = {}: cannot write to {} ({}); choose a folder that can be written", path_.parent_path().string(),
         path_.string(), error ? error.message() : "no permission");
  if (fs::exists(path_ / "study.cfg"))
    fail_usage("{} is the folder of a study: choose another run.name or run.out", path_.string());
  // The kernel releases it when this process ends, however it ends. The file stays: to remove it would let two runs
  // lock two files of one name.
  const fs::path file = path_ / "run.lock";
  lock_fd_ = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0)
    fail("{}: cannot be opened ({}); choose a run.out with folders that can be written", file.string(),
         std::strerror(errno));
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (fcntl(lock_fd_, F_SETLK, &whole) == 0) return write_holder(lock_fd_);
  if (errno == EACCES || errno == EAGAIN)
    fail("{} is in use by a run on host {} (its lock: {}): wait for its end or stop it, or choose another run.name",
         path_.string(), holder_of(lock_fd_), file.string());
  // Some parallel file systems are mounted without locks.
  fmt::print(stderr, "switchyard: warning: {}: no lock ({}); see to it that no other run writes there\n", file.string(),
             std::strerror(errno));
}

bool RunFolder::holds_a_run() const { return fs::exists(results()) || !io::list_checkpoints(path_).empty(); }

void RunFolder::make_free(bool overwrite, const std::string& start, const std::string& named) const {
  if (!overwrite && holds_a_run())
    fail_usage(
        "{} already holds a run; go on with it (--resume without a file), replace it (--overwrite), or choose another "
        "run.name",
        path_.string());
  std::vector<fs::path> files = io::list_checkpoints(path_);
  files.push_back(results());
  files.push_back(io::temporary_path(results()));
  std::error_code ignored;
  for (const fs::path& each : files) {
    if (fs::equivalent(each, start, ignored))
      fail_usage("{}: --overwrite would remove it with the run that it is of: choose another run.name", named);
    const fs::file_status status = fs::symlink_status(each, ignored);
    if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_symlink(status))
      fail("{} is {} where a run has a file: move it away, or choose another run.name", each.string(),
           fs::is_directory(status) ? "a folder" : "a device or a pipe");
  }
  for (const fs::path& each : files) fs::remove(each);
}

void RunFolder::require_none_after(Index step) const {
  for (const fs::path& each : io::list_checkpoints(path_))
    if (io::step_in_name(each) > step)
      fail_usage(
          "--resume: this run ends after step {}, which would remove {}: train for as many steps, move that checkpoint "
          "away, or choose another run.name",
          step, each.string());
}

}  // namespace switchyard
