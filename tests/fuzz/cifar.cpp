// CIFAR's binary files: a byte of options, then the file that stands for every one of a kind.
#include "fuzz/datasets.hpp"

namespace switchyard {

void read_input(std::string_view bytes) {
  const unsigned options = bytes.empty() ? 0 : static_cast<unsigned char>(bytes[0]);
  const fuzz::Folder folder;
  const std::string file = folder.write("records", bytes.substr(std::min<std::size_t>(1, bytes.size())));
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                           "data_batch_5.bin", "test_batch.bin", "train.bin", "test.bin"})
    if (!std::filesystem::exists(folder / name)) std::filesystem::create_hard_link(file, folder / name);
  fuzz::load({.kind = options & 128 ? "cifar100" : "cifar10", .path = folder.path()}, options);
}

}  // namespace switchyard
