#include "core/files.hpp"

#include "core/error.hpp"

namespace switchyard {

namespace fs = std::filesystem;

std::string why_no_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_regular_file(status)) return "";
  if (fs::is_directory(status)) return "is a folder: name a file in it";
  if (fs::exists(status)) return "is no file but a device or a pipe: name a file";
  return "no such file" + (error && error != std::errc::no_such_file_or_directory ? " (" + error.message() + ")" : "");
}

void require_file(const fs::path& path) {
  if (const std::string reason = why_no_file(path); !reason.empty()) fail("{}: {}", path.string(), reason);
}

}  // namespace switchyard
