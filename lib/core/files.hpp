// What every part that reads files needs.
#pragma once

#include <filesystem>
#include <string>

namespace switchyard {

// What is wrong with a path that is to be read: a folder, a device or a pipe, nothing at all. Empty: it is a file.
// Opening a pipe would wait for a writer, and reading a device may never end.
std::string why_no_file(const std::filesystem::path& path);

// Fails where there is no file to read.
void require_file(const std::filesystem::path& path);

}  // namespace switchyard
