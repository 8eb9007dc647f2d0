// IDX files: a byte of options, the length of the labels' file (2 bytes, little endian), labels and images.
#include "fuzz/datasets.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const auto byte = [&](std::size_t at) { return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0u; };
  const std::string_view files = bytes.substr(std::min<std::size_t>(3, bytes.size()));
  const std::size_t length = std::min<std::size_t>(byte(1) + 256 * byte(2), files.size());
  const fuzz::Folder folder;
  for (const char* split : {"train", "t10k"}) {
    folder.write(fmt::format("{}-labels-idx1-ubyte", split), files.substr(0, length));
    folder.write(fmt::format("{}-images-idx3-ubyte", split), files.substr(length));
  }
  fuzz::load({.kind = "mnist", .path = folder.path()}, byte(0));
}

}  // namespace switchyard
