#include "app/renewed_line.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace switchyard {

namespace {

// A file of /proc/PID; empty once that process is gone, even where it goes while its file is read: a stream's iterator
// would throw then.
std::string process_file(int pid, const char* name) {
  std::ostringstream text;
  if (std::ifstream file(fmt::format("/proc/{}/{}", pid, name)); file) text << file.rdbuf();
  return text.str();
}

// mpirun, or its daemon on another machine: the nearest ancestor that is no part of a rank. 0 where that is not seen.
int launcher() {
  constexpr const char* kRank = "OMPI_COMM_WORLD_RANK=";
  int pid = getppid();
  while (pid > 1) {
    const std::string environment = process_file(pid, "environ");
    if (!environment.starts_with(kRank) && environment.find('\0' + std::string(kRank)) == std::string::npos) return pid;
    // PID (NAME) STATE PARENT ...
    const std::string stat = process_file(pid, "stat");
    const std::size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos || name_end + 4 >= stat.size()) return 0;
    pid = std::atoi(stat.c_str() + name_end + 4);
  }
  return 0;
}

// Open MPI gives rank 0 a pseudo-terminal even where mpirun itself writes to a file, so under mpirun it is the standard
// output of mpirun that counts. -1: no terminal.
int open_terminal() {
  const char* term = std::getenv("TERM");
  if (term && std::strcmp(term, "dumb") == 0) return -1;
  const bool under_mpirun = std::getenv("OMPI_COMM_WORLD_SIZE") && std::getenv("OMPI_MCA_ess_base_jobid");
  const int fd = under_mpirun ? open(fmt::format("/proc/{}/fd/1", launcher()).c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC)
                              : dup(STDOUT_FILENO);
  if (fd >= 0 && !isatty(fd)) {
    close(fd);
    return -1;
  }
  return fd;
}

// The longest beginning of so many characters.
std::string clipped(const std::string& text, std::size_t characters) {
  std::size_t end = 0;
  for (; end < text.size(); ++end) {
    const bool begins_one = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (begins_one && characters-- == 0) break;
  }
  return text.substr(0, end);
}

}  // namespace

RenewedLine::RenewedLine(bool speaks) : terminal_(speaks ? open_terminal() : -1) {}

RenewedLine::~RenewedLine() {
  clear();
  if (terminal_ >= 0) close(terminal_);
}

std::size_t RenewedLine::columns() const {
  if (terminal_ < 0) return 0;
  winsize size{};
  const bool known = ioctl(terminal_, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - std::size_t{1} : 79;
}

void RenewedLine::show(const std::string& text) {
  if (terminal_ < 0) return;
  fmt::print("\r\033[K{}", clipped(text, columns()));
  std::fflush(stdout);
  shown_ = true;
}

void RenewedLine::clear() {
  if (!shown_) return;
  fmt::print("\r\033[K");
  std::fflush(stdout);
  shown_ = false;
}

}  // namespace switchyard
