// What the fuzzed readers share. Each defines read_input(), which ends in success or in switchyard::Error; all else is
// a finding: another exception, a crash, what the sanitizers tell, a hang, memory without bounds.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace switchyard {

void read_input(std::string_view bytes);

namespace fuzz {

// Readers take paths. In TMPDIR, which run.sh puts into memory and removes; the next input's files replace these.
class Folder {
 public:
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return fmt::format("{}/{}", path_, name); }

  // Returns the file's path.
  std::string write(std::string_view name, std::string_view bytes) const {
    std::string file = *this / name;
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

 private:
  static std::string made() {
    const auto path = std::filesystem::temp_directory_path() / fmt::format("switchyard-fuzz-{}", getpid());
    std::filesystem::create_directory(path);
    return path;
  }
  inline static const std::string path_ = made();
};

template <typename Body>
void tolerate_errors(const Body& body) {
  try {
    body();
  } catch (const Error&) {
  }
}

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

}  // namespace fuzz
}  // namespace switchyard
