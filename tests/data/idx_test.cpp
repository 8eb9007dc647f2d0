// IDX files (MNIST, Fashion-MNIST): written small by the test, and the real ones where they are installed.
#include <gtest/gtest.h>
#include <zlib.h>

#include "config/test_files.hpp"
#include "data/dataset.hpp"

namespace switchyard {
namespace {

using test::expect_error;
using test::TemporaryFolder;

constexpr Index kPixels = 28 * 28;

std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string image_header(std::uint32_t count, std::uint32_t height = 28, std::uint32_t width = 28) {
  return std::string("\0\0\x08\x03", 4) + big_endian(count) + big_endian(height) + big_endian(width);
}

std::string label_header(std::uint32_t count) { return std::string("\0\0\x08\x01", 4) + big_endian(count); }

// Pixel p of image i is 7 i + p modulo 251.
char pixel(Index i, Index p) { return static_cast<char>((7 * i + p) % 251); }

std::string image_file(Index count) {
  std::string bytes = image_header(static_cast<std::uint32_t>(count));
  for (Index i = 0; i < count; ++i)
    for (Index p = 0; p < kPixels; ++p) bytes += pixel(i, p);
  return bytes;
}

std::string label_file(const std::string& labels) {
  return label_header(static_cast<std::uint32_t>(labels.size())) + labels;
}

std::string compressed(const std::string& bytes) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);  // + 16: gzip's header
  std::string result(deflateBound(&stream, bytes.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  return result;
}

// Four plain files: three training images labelled 4 0 9, two test images labelled 1 2.
void write_four(const TemporaryFolder& folder) {
  folder.write("train-images-idx3-ubyte", image_file(3));
  folder.write("train-labels-idx1-ubyte", label_file(std::string("\4\0\x9", 3)));
  folder.write("t10k-images-idx3-ubyte", image_file(2));
  folder.write("t10k-labels-idx1-ubyte", label_file("\1\2"));
}

Dataset load(const TemporaryFolder& folder, Index limit = 0) {
  return load_dataset({.kind = "mnist", .path = folder.path(), .limit = limit});
}

// The four files, but `name` holds `bytes`: loading fails, naming that file and all of `parts`.
void expect_bad_file(const std::string& name, const std::string& bytes, std::initializer_list<std::string> parts) {
  const TemporaryFolder folder;
  write_four(folder);
  folder.write(name, bytes);
  expect_error(ExitCode::kFailure, {folder / name}, [&] { load(folder); });
  expect_error(ExitCode::kFailure, parts, [&] { load(folder); });
}

void expect_the_four(const Dataset& data) {
  EXPECT_EQ(data.height, 28);
  EXPECT_EQ(data.width, 28);
  EXPECT_EQ(data.channels, 1);
  EXPECT_EQ(data.classes, 10);
  ASSERT_EQ(data.train.count, 3);
  ASSERT_EQ(data.test.count, 2);
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{4, 0, 9}));
  EXPECT_EQ(data.test.labels, (std::vector<std::int32_t>{1, 2}));
  ASSERT_EQ(data.train.images.size(), static_cast<std::size_t>(3 * kPixels));
  for (Index i = 0; i < 3; ++i)
    for (Index p = 0; p < kPixels; ++p)
      ASSERT_EQ(data.train.images[static_cast<std::size_t>(i * kPixels + p)], static_cast<std::uint8_t>(pixel(i, p)));
}

TEST(Idx, PlainFiles) {
  const TemporaryFolder folder;
  write_four(folder);
  expect_the_four(load(folder));
}

TEST(Idx, GzipAndTheOtherSpelling) {
  const TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte.gz", compressed(image_file(3)));
  folder.write("train-labels.idx1-ubyte.gz", compressed(label_file(std::string("\4\0\x9", 3))));
  folder.write("t10k-images.idx3-ubyte", image_file(2));
  folder.write("t10k-labels-idx1-ubyte", label_file("\1\2"));
  expect_the_four(load(folder));
}

TEST(Idx, LimitTakesTheFirstOfEachSplit) {
  const TemporaryFolder folder;
  write_four(folder);
  const Dataset data = load(folder, 1);
  EXPECT_EQ(data.train.labels, std::vector<std::int32_t>{4});
  EXPECT_EQ(data.test.labels, std::vector<std::int32_t>{1});
  EXPECT_EQ(data.train.images.size(), static_cast<std::size_t>(kPixels));
  EXPECT_EQ(load(folder, 1000).train.count, 3);
}

TEST(Idx, TheTestSplitAloneNeedsNoTrainingFiles) {
  const TemporaryFolder folder;
  folder.write("t10k-images-idx3-ubyte", image_file(2));
  folder.write("t10k-labels-idx1-ubyte", label_file("\1\2"));
  const Dataset data = load_dataset({.kind = "mnist", .path = folder.path(), .test_only = true});
  EXPECT_EQ(data.test.labels, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(data.train.count, 0);
}

TEST(Idx, MissingFolderAndFile) {
  const TemporaryFolder folder;
  expect_error(ExitCode::kUsage, {folder / "none", "no such folder", "data.path empty"},
               [&] { load_dataset({.kind = "fashion-mnist", .path = folder / "none"}); });
  expect_error(ExitCode::kFailure, {folder / "train-images-idx3-ubyte.gz", "no such file", "data.path"},
               [&] { load(folder); });
}

// The usual places of mnist and cifar10 are below the folder that the program runs in.
TEST(Idx, DataInTheirUsualPlaceNeedNoPath) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "data/mnist");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  for (const auto& [path, code] : {std::pair{folder / "none", ExitCode::kUsage}, {folder.path(), ExitCode::kFailure}})
    expect_error(code, {path, "Leave data.path empty to use data/mnist"},
                 [&, path = path] { load_dataset({.kind = "mnist", .path = path}); });
  expect_error(ExitCode::kFailure, {"data/mnist/train-images-idx3-ubyte.gz", "MNIST database's own page"},
               [] { load_dataset({.kind = "mnist"}); });
  std::filesystem::current_path(before);
}

TEST(Idx, Truncated) {
  expect_bad_file("train-images-idx3-ubyte", image_file(3).substr(0, 1000), {"truncated", "2352 bytes", "984"});
  expect_bad_file("train-labels-idx1-ubyte", label_file("\1\2\3").substr(0, 10), {"truncated"});
  expect_bad_file("t10k-images-idx3-ubyte", "", {"truncated", "header"});
  const std::string gzip = compressed(image_file(3));
  expect_bad_file("train-images-idx3-ubyte.gz", gzip.substr(0, gzip.size() / 2), {"truncated"});
  expect_bad_file("train-images-idx3-ubyte.gz", gzip.substr(0, gzip.size() - 4), {"truncated"});
}

TEST(Idx, CorruptGzip) {
  std::string gzip = compressed(image_file(3));
  std::string bad_sum = gzip;
  bad_sum[gzip.size() - 8] ^= 1;  // the checksum
  expect_bad_file("train-images-idx3-ubyte.gz", bad_sum, {"corrupt gzip"});
  gzip[15] ^= 0x7f;  // within the deflated data
  expect_bad_file("train-images-idx3-ubyte.gz", gzip, {"corrupt gzip"});
}

TEST(Idx, WrongMagic) {
  expect_bad_file("train-images-idx3-ubyte", label_file(std::string(100, '\1')), {"00 00 08 01", "00 00 08 03"});
  expect_bad_file("train-images-idx3-ubyte", std::string(100, 'x'), {"78 78 78 78"});
}

TEST(Idx, DimensionsBeyondTheFile) {
  expect_bad_file("train-images-idx3-ubyte", image_header(0xffffffffu, 0xffffffffu, 0xffffffffu), {"28 x 28"});
  // Three labels, four thousand million images: no memory is taken for them.
  const TemporaryFolder folder;
  write_four(folder);
  folder.write("train-images-idx3-ubyte", image_header(0xffffffffu));
  folder.write("train-labels-idx1-ubyte", label_header(0xffffffffu) + "\1\2\3");
  expect_error(ExitCode::kFailure, {folder / "train-images-idx3-ubyte", "truncated"}, [&] { load(folder); });
}

TEST(Idx, LongerThanItsHeaderSays) { expect_bad_file("train-images-idx3-ubyte", image_file(3) + "x", {"longer"}); }

TEST(Idx, OtherImageSize) { expect_bad_file("train-images-idx3-ubyte", image_header(3, 32, 32), {"32 x 32", "hdf5"}); }

TEST(Idx, EmptySplit) { expect_bad_file("t10k-images-idx3-ubyte", image_file(0), {"no image"}); }

TEST(Idx, CountMismatch) { expect_bad_file("train-labels-idx1-ubyte", label_file("\1\2"), {"3 images", "2 labels"}); }

TEST(Idx, LabelOutOfRange) {
  expect_bad_file("train-labels-idx1-ubyte", label_file("\1\xa\2"), {"label 10", "sample 1", "0 to 9"});
}

TEST(Idx, RealFashionMnist) {
  const std::string path = default_path("fashion-mnist");
  if (!std::filesystem::exists(path + "/train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "Fashion-MNIST is not installed (Debian's dataset-fashion-mnist)";
  const Dataset data = load_dataset({.kind = "fashion-mnist"});
  EXPECT_EQ(data.train.count, 60000);
  EXPECT_EQ(data.test.count, 10000);
  const auto first_five = [](const Split& split) {
    return std::vector<std::int32_t>(split.labels.begin(), split.labels.begin() + 5);
  };
  EXPECT_EQ(first_five(data.train), (std::vector<std::int32_t>{9, 0, 0, 3, 0}));
  EXPECT_EQ(first_five(data.test), (std::vector<std::int32_t>{9, 2, 1, 1, 6}));
  std::vector<int> count(10);
  for (const std::int32_t label : data.train.labels) ++count[static_cast<std::size_t>(label)];
  EXPECT_EQ(count, std::vector<int>(10, 6000));
}

}  // namespace
}  // namespace switchyard
