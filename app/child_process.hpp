// A program started beside this one, its output in a log.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

// Gets SIGTERM if this process ends before it, and no signal from the terminal. Told to end, and waited for, by its
// destructor.
class ChildProcess {
 public:
  // Standard output and error are appended to `log`; a program that cannot be started says so there and ends with 127.
  ChildProcess(const std::vector<std::string>& words, const std::filesystem::path& log);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  bool is_running();
  void send(int signal);
  // Once it has ended: 128 + signal where one ended it.
  int exit_code() const { return exit_code_; }
  // Once it has ended: of the largest process that it was, or started.
  Index peak_bytes() const { return peak_bytes_; }

 private:
  void reap(int options);

  pid_t pid_ = -1;
  int exit_code_ = -1;
  Index peak_bytes_ = 0;
};

}  // namespace switchyard
