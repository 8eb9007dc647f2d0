// Small data sets in the formats that users have.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/types.hpp"

namespace switchyard::test {

// Pixels that tell the classes apart, differently in each sample.
inline char pixel_of(Index sample, Index label, Index place) {
  return static_cast<char>((place % 10 == label ? 180 : 20) + (sample * 7 + place * 13) % 50);
}

// IDX: big-endian numbers, then bytes.
inline std::string idx_header(std::initializer_list<Index> dimensions) {
  std::string bytes = {0, 0, 8, static_cast<char>(dimensions.size())};
  for (Index dimension : dimensions)
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(dimension >> shift);
  return bytes;
}

inline std::string idx_images(Index count) {
  std::string bytes = idx_header({count, 28, 28});
  for (Index sample = 0; sample < count; ++sample)
    for (Index place = 0; place < 28 * 28; ++place) bytes += pixel_of(sample, sample % 10, place);
  return bytes;
}

inline std::string idx_labels(Index count) {
  std::string bytes = idx_header({count});
  for (Index sample = 0; sample < count; ++sample) bytes += static_cast<char>(sample % 10);
  return bytes;
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

inline void write_gzip(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

// 100 + 20 images, gzip as they are distributed.
inline void write_mnist(const std::filesystem::path& folder) {
  write_gzip(folder / "train-images-idx3-ubyte.gz", idx_images(100));
  write_gzip(folder / "train-labels-idx1-ubyte.gz", idx_labels(100));
  write_gzip(folder / "t10k-images-idx3-ubyte.gz", idx_images(20));
  write_gzip(folder / "t10k-labels-idx1-ubyte.gz", idx_labels(20));
}

// CIFAR-10's binary version: one label byte, then 32 x 32 bytes each of red, green and blue.
inline std::string cifar10_records(Index count) {
  std::string bytes;
  for (Index sample = 0; sample < count; ++sample) {
    bytes += static_cast<char>(sample % 10);
    for (Index place = 0; place < 3 * 32 * 32; ++place) bytes += pixel_of(sample, sample % 10, place);
  }
  return bytes;
}

// 5 x 20 + 25 images.
inline void write_cifar10(const std::filesystem::path& folder) {
  for (int batch = 1; batch <= 5; ++batch)
    write_file(folder / ("data_batch_" + std::to_string(batch) + ".bin"), cifar10_records(20));
  write_file(folder / "test_batch.bin", cifar10_records(25));
}

}  // namespace switchyard::test
