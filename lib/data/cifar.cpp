// CIFAR-10 and CIFAR-100, binary version: records of one label byte (CIFAR-100: coarse, then fine) and three planes of
// 32 x 32 bytes: red, green, blue.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "core/files.hpp"
#include "data/formats.hpp"

namespace switchyard {

namespace {

constexpr Index kSide = 32, kChannels = 3, kPlane = kSide * kSide;

struct Format {
  std::string folder;  // as the official archive unpacks
  Index label_bytes;   // the last one is the label
  Index classes;
  std::vector<std::string> train, test;
};

Format format_of(const std::string& kind) {
  if (kind == "cifar100") return {"cifar-100-binary", 2, 100, {"train.bin"}, {"test.bin"}};
  return {"cifar-10-batches-bin",
          1,
          10,
          {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
          {"test_batch.bin"}};
}

// Appends a file's records to the split, at most `limit` samples in all (0: no limit).
void read_file(const std::string& path, const std::string& kind, Index limit, Split& split) {
  const Format format = format_of(kind);
  const Index record_bytes = format.label_bytes + kPlane * kChannels;
  if (const std::string reason = why_no_file(path); !reason.empty())
    fail("{}: {}. {}", path, reason, how_to_get(kind, path));
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("{}: cannot open this file: {}. {}", path, std::strerror(errno), how_to_get(kind, path));
  const auto file_bytes = static_cast<Index>(std::filesystem::file_size(path));
  if (file_bytes == 0 || file_bytes % record_bytes != 0)
    fail(
        "{}: {} bytes are not a whole number of {}'s records of {} bytes: truncated, or another kind of file: get it "
        "anew.",
        path, file_bytes, kind, record_bytes);

  const Index first = split.count, total = limited(first + file_bytes / record_bytes, limit);
  split.images.resize(static_cast<std::size_t>(total * kPlane * kChannels));
  split.labels.resize(static_cast<std::size_t>(total));
  std::vector<char> record(static_cast<std::size_t>(record_bytes));
  for (Index sample = first; sample < total; ++sample) {
    if (!file.read(record.data(), record_bytes))
      fail("{}: reading record {} failed: get the file anew.", path, sample - first);
    const Index label = static_cast<unsigned char>(record[static_cast<std::size_t>(format.label_bytes - 1)]);
    if (label >= format.classes)
      fail("{}: label {} of sample {} is out of range: {} classes allow 0 to {}.", path, label, sample - first,
           format.classes, format.classes - 1);
    split.labels[static_cast<std::size_t>(sample)] = static_cast<std::int32_t>(label);
    const char* const planes = record.data() + format.label_bytes;  // (channel, row, column)
    std::uint8_t* const image = &split.images[static_cast<std::size_t>(sample * kPlane * kChannels)];
    for (Index pixel = 0; pixel < kPlane; ++pixel)
      for (Index channel = 0; channel < kChannels; ++channel)
        image[pixel * kChannels + channel] = static_cast<std::uint8_t>(planes[channel * kPlane + pixel]);
  }
  split.count = total;
}

Split read_split(const std::string& folder, const std::vector<std::string>& names, const std::string& kind,
                 Index limit) {
  Split split;
  for (const std::string& name : names) {
    if (limit > 0 && split.count >= limit) break;
    read_file(folder + "/" + name, kind, limit, split);
  }
  return split;
}

// The path itself, or the official archive's folder in it.
std::string folder_of(const std::string& path, const Format& format) {
  std::error_code ignored;
  const std::string unpacked = path + "/" + format.folder;
  return !std::filesystem::exists(path + "/" + format.test[0], ignored) &&
                 std::filesystem::is_directory(unpacked, ignored)
             ? unpacked
             : path;
}

}  // namespace

std::vector<std::string> cifar_files(const std::string& path, const std::string& kind) {
  const Format format = format_of(kind);
  std::vector<std::string> files;
  for (const auto& names : {format.train, format.test})
    for (const std::string& name : names) files.push_back(folder_of(path, format) + "/" + name);
  return files;
}

Dataset load_cifar(const std::string& path, const DataOptions& options) {
  const std::string& kind = options.kind;
  const Format format = format_of(kind);
  const std::string folder = folder_of(path, format);
  return {.name = kind,
          .height = kSide,
          .width = kSide,
          .channels = kChannels,
          .classes = format.classes,
          .train = options.test_only ? Split{} : read_split(folder, format.train, kind, options.limit),
          .test = read_split(folder, format.test, kind, options.limit)};
}

}  // namespace switchyard
