// Errors that reach the user. Grammar of a message: what is wrong, where (file, key, rank), what to do.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace switchyard {

// The program's exit codes, documented in the README.
enum class ExitCode : int {
  kOk = 0,
  kFailure = 1,   // something failed while running: data, files, ranks
  kUsage = 2,     // command line or configuration
  kDiverged = 3,  // a loss or gradient that is not finite
  kStopped = 75,  // stopped by a signal after writing a checkpoint (EX_TEMPFAIL: run again with --resume)
};

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::kFailure)
      : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

// For mistakes in a configuration or on the command line.
template <typename... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), ExitCode::kUsage);
}

// "1, 2, 3", for messages. (GCC 12 takes fmt::join for a write out of bounds.)
template <typename Numbers>
std::string listed(const Numbers& numbers) {
  std::string text;
  for (const auto& number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text;
}

}  // namespace switchyard
