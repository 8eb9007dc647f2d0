// HDF5 1.10 itself may crash on a file whose metadata are damaged. While a guard is there, such a crash ends the
// program with exit code 1 and words that name the file. On the main thread; a no-op under the sanitizers, which tell
// more.
#pragma once

#include <memory>
#include <string>

namespace switchyard {

class CrashGuard {
 public:
  explicit CrashGuard(const std::string& path);
  ~CrashGuard();
  CrashGuard(CrashGuard&&) noexcept = default;
  CrashGuard& operator=(CrashGuard&&) = delete;

 private:
  std::unique_ptr<const std::string> words_;
};

}  // namespace switchyard
