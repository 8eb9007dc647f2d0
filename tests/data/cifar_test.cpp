// CIFAR's binary files, written small by the test.
#include <sys/stat.h>

#include <gtest/gtest.h>

#include "config/test_files.hpp"
#include "data/dataset.hpp"

namespace switchyard {
namespace {

using test::expect_error;
using test::TemporaryFolder;

// One record: label bytes, then planes with red = seed + row, green = 64 + column, blue = 200.
std::string record(const std::string& label, int seed) {
  std::string bytes = label;
  for (int channel = 0; channel < 3; ++channel)
    for (int row = 0; row < 32; ++row)
      for (int column = 0; column < 32; ++column)
        bytes += static_cast<char>(channel == 0 ? seed + row : channel == 1 ? 64 + column : 200);
  return bytes;
}

std::string label(int value) { return std::string(1, static_cast<char>(value)); }

// Two records in each of the five training files, labelled 0 .. 9; one test record labelled 9.
void write_cifar10(const std::string& folder) {
  for (int file = 0; file < 5; ++file)
    std::ofstream(folder + "/data_batch_" + std::to_string(file + 1) + ".bin", std::ios::binary)
        << record(label(2 * file), 2 * file) << record(label(2 * file + 1), 2 * file + 1);
  std::ofstream(folder + "/test_batch.bin", std::ios::binary) << record(label(9), 50);
}

TEST(Cifar, PlanesBecomeInterleavedChannels) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  const Dataset data = load_dataset({.kind = "cifar10", .path = folder.path()});
  EXPECT_EQ(data.height, 32);
  EXPECT_EQ(data.width, 32);
  EXPECT_EQ(data.channels, 3);
  EXPECT_EQ(data.classes, 10);
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(data.test.labels, std::vector<std::int32_t>{9});
  ASSERT_EQ(data.train.images.size(), 10u * 3072);
  const std::uint8_t* const pixel = &data.train.images[3 * 3072 + (5 * 32 + 7) * 3];  // image 3, row 5, column 7
  EXPECT_EQ(pixel[0], 3 + 5);
  EXPECT_EQ(pixel[1], 64 + 7);
  EXPECT_EQ(pixel[2], 200);
}

TEST(Cifar, FolderOfTheOfficialArchive) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "cifar-10-batches-bin");
  write_cifar10(folder / "cifar-10-batches-bin");
  EXPECT_EQ(load_dataset({.kind = "cifar10", .path = folder.path()}).train.count, 10);
}

TEST(Cifar, TheTestSplitAloneNeedsNoTrainingFiles) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "cifar-10-batches-bin");
  write_cifar10(folder / "cifar-10-batches-bin");
  for (int batch = 1; batch <= 5; ++batch)
    std::filesystem::remove(folder / ("cifar-10-batches-bin/data_batch_" + std::to_string(batch) + ".bin"));
  const Dataset data = load_dataset({.kind = "cifar10", .path = folder.path(), .test_only = true});
  EXPECT_GT(data.test.count, 0);
  EXPECT_EQ(data.train.count, 0);
}

TEST(Cifar, LimitTakesTheFirstAcrossFiles) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  const Dataset data = load_dataset({.kind = "cifar10", .path = folder.path(), .limit = 3});
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(data.train.images.size(), 3u * 3072);
  EXPECT_EQ(data.test.count, 1);
}

TEST(Cifar, Cifar100TakesTheFineLabel) {
  const TemporaryFolder folder;
  folder.write("train.bin", record(label(19) + label(99), 1) + record(label(3) + label(42), 2));
  folder.write("test.bin", record(label(0) + label(7), 3));
  const Dataset data = load_dataset({.kind = "cifar100", .path = folder.path()});
  EXPECT_EQ(data.classes, 100);
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{99, 42}));
  EXPECT_EQ(data.test.labels, std::vector<std::int32_t>{7});
  EXPECT_EQ(data.train.images[0], 1) << "pixels begin after both labels";
}

TEST(Cifar, MissingFolderAndFile) {
  const TemporaryFolder folder;
  expect_error(ExitCode::kUsage, {folder / "none", "no such folder", "cifar-10-binary.tar.gz", "data.path"},
               [&] { load_dataset({.kind = "cifar10", .path = folder / "none"}); });
  write_cifar10(folder.path());
  std::filesystem::remove(folder / "data_batch_4.bin");
  expect_error(ExitCode::kFailure, {folder / "data_batch_4.bin", "no such file"},
               [&] { load_dataset({.kind = "cifar10", .path = folder.path()}); });
  // To open it would wait for a writer.
  ASSERT_EQ(mkfifo((folder / "data_batch_4.bin").c_str(), 0600), 0);
  expect_error(ExitCode::kFailure, {folder / "data_batch_4.bin", "a pipe"},
               [&] { load_dataset({.kind = "cifar10", .path = folder.path()}); });
}

TEST(Cifar, TruncatedAndEmpty) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  for (const std::string& bytes : {record(label(1), 0).substr(0, 3000), std::string()}) {
    folder.write("data_batch_2.bin", bytes);
    expect_error(ExitCode::kFailure, {folder / "data_batch_2.bin", std::to_string(bytes.size()) + " bytes", "3073"},
                 [&] { load_dataset({.kind = "cifar10", .path = folder.path()}); });
  }
}

TEST(Cifar, LabelOutOfRange) {
  const TemporaryFolder folder;
  write_cifar10(folder.path());
  folder.write("data_batch_2.bin", record(label(1), 0) + record(label(10), 0));
  expect_error(ExitCode::kFailure, {folder / "data_batch_2.bin", "label 10", "sample 1", "0 to 9"},
               [&] { load_dataset({.kind = "cifar10", .path = folder.path()}); });
}

}  // namespace
}  // namespace switchyard
