// HDF5 data as a user writes it with h5py.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numeric>

#include "config/test_files.hpp"
#include "data/dataset.hpp"

namespace switchyard {
namespace {

using test::expect_error;
using test::TemporaryFolder;

using Shape = std::vector<hsize_t>;

// Writes a file piece by piece; h5py's `file["train/images"] = array`.
class Writer {
 public:
  explicit Writer(const std::string& path) : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~Writer() { H5Fclose(file_); }

  template <typename T>
  Writer& write(const std::string& name, hid_t type, const Shape& shape, const std::vector<T>& values) {
    const hid_t create_groups = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(create_groups, 1);
    const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t dataset = H5Dcreate2(file_, name.c_str(), type, space, create_groups, H5P_DEFAULT, H5P_DEFAULT);
    if (!values.empty()) H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(dataset);
    H5Sclose(space);
    H5Pclose(create_groups);
    return *this;
  }

  Writer& images(const std::string& group, const Shape& shape) {
    std::vector<std::uint8_t> pixels(std::accumulate(shape.begin(), shape.end(), hsize_t{1}, std::multiplies<>()));
    std::iota(pixels.begin(), pixels.end(), std::uint8_t{0});
    return write(group + "/images", H5T_NATIVE_UINT8, shape, pixels);
  }

  Writer& labels(const std::string& group, const std::vector<std::int64_t>& values) {
    return write(group + "/labels", H5T_NATIVE_INT64, {values.size()}, values);
  }

  Writer& classes(std::int32_t value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(file_, "classes", H5T_NATIVE_INT32, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT32, &value);
    H5Aclose(attribute);
    H5Sclose(space);
    return *this;
  }

 private:
  hid_t file_;
};

// The file that `write` makes, loaded.
template <typename Write>
Dataset load(const Write& write, Index limit = 0, bool test_only = false) {
  const TemporaryFolder folder;
  {
    Writer writer(folder / "data.h5");
    write(writer);
  }
  return load_dataset({.kind = "hdf5", .path = folder / "data.h5", .limit = limit, .test_only = test_only});
}

template <typename Write>
void expect_bad(std::initializer_list<std::string> parts, const Write& write) {
  expect_error(ExitCode::kFailure, {"data.h5"}, [&] { load(write); });
  expect_error(ExitCode::kFailure, parts, [&] { load(write); });
}

TEST(Hdf5, ImagesWithChannels) {
  const Dataset data = load([](Writer& file) {
    file.images("train", {4, 2, 3, 2}).labels("train", {0, 2, 1, 2}).images("test", {1, 2, 3, 2}).labels("test", {1});
  });
  EXPECT_EQ(data.height, 2);
  EXPECT_EQ(data.width, 3);
  EXPECT_EQ(data.channels, 2);
  EXPECT_EQ(data.classes, 3) << "1 + the largest label";
  EXPECT_EQ(data.train.count, 4);
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{0, 2, 1, 2}));
  ASSERT_EQ(data.train.images.size(), 48u);
  for (std::size_t i = 0; i < 48; ++i) EXPECT_EQ(data.train.images[i], i);
  EXPECT_EQ(data.test.count, 1);
}

TEST(Hdf5, ImagesWithoutChannelsAndSmallLabels) {
  const Dataset data = load([](Writer& file) {
    file.images("train", {2, 3, 3}).write<std::uint8_t>("train/labels", H5T_NATIVE_UINT8, {2}, {1, 0});
    file.images("test", {1, 3, 3}).write<std::int16_t>("test/labels", H5T_NATIVE_INT16, {1}, {1});
    file.classes(7);
  });
  EXPECT_EQ(data.channels, 1);
  EXPECT_EQ(data.classes, 7) << "the attribute";
  EXPECT_EQ(data.train.labels, (std::vector<std::int32_t>{1, 0}));
}

TEST(Hdf5, LimitKeepsTheNumberOfClasses) {
  const auto write = [](Writer& file) {
    file.images("train", {4, 2, 2}).labels("train", {0, 1, 5, 1}).images("test", {2, 2, 2}).labels("test", {0, 1});
  };
  const Dataset data = load(write, 1);
  EXPECT_EQ(data.train.count, 1);
  EXPECT_EQ(data.train.images.size(), 4u);
  EXPECT_EQ(data.train.labels.size(), 1u);
  EXPECT_EQ(data.classes, 6);
}

TEST(Hdf5, TheTestSplitAloneNeedsNoTrainingSplit) {
  const auto load_test = [](const auto& write) { return load(write, 0, true); };
  const auto write_test = [](Writer& file) { file.images("test", {2, 2, 2}).labels("test", {0, 1}); };
  const Dataset alone = load_test(write_test);
  EXPECT_EQ(alone.train.count, 0);
  EXPECT_EQ(alone.test.count, 2);
  EXPECT_EQ(alone.height, 2);
  EXPECT_EQ(alone.classes, 2);
  const Dataset beside_damage = load_test([&](Writer& file) {
    write_test(file);
    file.images("train", {3}).classes(5);
  });
  EXPECT_EQ(beside_damage.classes, 5);
  const Dataset both = load_test([&](Writer& file) {
    write_test(file);
    file.images("train", {3, 2, 2}).labels("train", {0, 3, 1});
  });
  EXPECT_EQ(both.train.labels.size(), 0u);
  EXPECT_EQ(both.classes, 4) << "as with the training split";
}

TEST(Hdf5, TheTestSplitAloneBesideTrainingImagesThatAreASingleValue) {
  const auto write = [](Writer& file) {
    file.images("test", {2, 2, 2}).labels("test", {0, 1}).images("train", {}).labels("train", {0, 1});
  };
  expect_error(ExitCode::kFailure, {"data.h5:train/images", "single value"}, [&] { load(write, 0, true); });
  expect_error(ExitCode::kFailure, {"data.h5:train/images", "()", "(N, H, W, C)"}, [&] { load(write); });
}

// Several cluster file systems have no locks, or somebody else holds one.
TEST(Hdf5, NeedsNoLock) {
  const TemporaryFolder folder;
  const std::string path = folder / "data.h5";
  Writer(path).images("train", {1, 2, 2}).labels("train", {0}).images("test", {1, 2, 2}).labels("test", {1});
  const int other = open(path.c_str(), O_RDWR);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  EXPECT_EQ(load_dataset({.kind = "hdf5", .path = path}).classes, 2);
  close(other);
}

TEST(Hdf5, MissingFileOrDataset) {
  expect_error(ExitCode::kUsage, {"/nowhere/data.h5", "no such file", "data.path"},
               [] { load_dataset({.kind = "hdf5", .path = "/nowhere/data.h5"}); });
  expect_error(ExitCode::kUsage, {"data.path"}, [] { load_dataset({.kind = "hdf5"}); });
  expect_bad({":train/labels", "no such dataset", "the file needs train/images"}, [](Writer& file) {
    file.images("train", {1, 2, 2});
  });
  expect_bad({":test/images", "no such dataset", "the file needs train/images"}, [](Writer& file) {
    file.images("train", {1, 2, 2}).labels("train", {0});
  });
}

TEST(Hdf5, OtherFileAndTruncatedFile) {
  const TemporaryFolder folder;
  const std::string path = folder.write("text.h5", "not HDF5 at all");
  expect_error(ExitCode::kFailure, {path, "cannot open this as an HDF5 file"},
               [&] { load_dataset({.kind = "hdf5", .path = path}); });
  {
    Writer file(folder / "cut.h5");
    file.images("train", {100, 8, 8}).labels("train", std::vector<std::int64_t>(100));
  }
  std::filesystem::resize_file(folder / "cut.h5", 4000);
  expect_error(ExitCode::kFailure, {folder / "cut.h5", "truncated"},
               [&] { load_dataset({.kind = "hdf5", .path = folder / "cut.h5"}); });
}

TEST(Hdf5, WrongTypes) {
  expect_bad({":train/images", "uint8"}, [](Writer& file) {
    file.write<float>("train/images", H5T_NATIVE_FLOAT, {1, 1, 1}, {0.5f}).labels("train", {0});
  });
  expect_bad({":train/labels", "integer"}, [](Writer& file) {
    file.images("train", {1, 2, 2}).write<float>("train/labels", H5T_NATIVE_FLOAT, {1}, {0});
  });
}

TEST(Hdf5, WrongShapes) {
  expect_bad({":train/images", "(2, 4)", "(N, H, W, C)"}, [](Writer& file) {
    file.images("train", {2, 4}).labels("train", {0, 0});
  });
  expect_bad({":train/images", "8 channels", "(N, H, W, C)"}, [](Writer& file) {
    file.images("train", {2, 3, 8, 8}).labels("train", {0, 0});
  });
  expect_bad({":train/images", "(2, 16384, 4097, 1)", "67125248 values", "67108864"}, [](Writer& file) {
    file.write("train/images", H5T_NATIVE_UINT8, {2, 16384, 4097, 1}, std::vector<std::uint8_t>{})
        .labels("train", {0, 1});
  });
  expect_bad({":train/images", "4294967296 samples", "4294967295", "data.limit"}, [](Writer& file) {
    file.write("train/images", H5T_NATIVE_UINT8, {hsize_t{1} << 32, 1, 1}, std::vector<std::uint8_t>{})
        .labels("train", {0});
  });
  expect_bad({":train/images", "no image"}, [](Writer& file) {
    file.write<std::uint8_t>("train/images", H5T_NATIVE_UINT8, {0, 2, 2}, {}).labels("train", {});
  });
  expect_bad({":train/labels", "(1, 1)"}, [](Writer& file) {
    file.images("train", {1, 2, 2}).write<std::int32_t>("train/labels", H5T_NATIVE_INT32, {1, 1}, {0});
  });
  expect_bad({"2 x 2 x 1", "3 x 3 x 1", "must agree"}, [](Writer& file) {
    file.images("train", {1, 2, 2}).labels("train", {0}).images("test", {1, 3, 3}).labels("test", {0});
  });
}

TEST(Hdf5, CountMismatch) {
  expect_bad({":train/labels", "3 labels", "2 images"}, [](Writer& file) {
    file.images("train", {2, 2, 2}).labels("train", {0, 0, 0});
  });
}

TEST(Hdf5, DeclaredButNeverWritten) {
  expect_bad({":train/images", "never fully written"}, [](Writer& file) {
    file.write<std::uint8_t>("train/images", H5T_NATIVE_UINT8, {2, 4096, 4096, 4}, {}).labels("train", {0, 1});
  });
}

// Which reads whatever file it names as images.
TEST(Hdf5, ValuesInAnotherFileAreRefused) {
  const TemporaryFolder folder;
  folder.write("secret", "four");
  const std::string path = folder / "data.h5";
  Writer(path).labels("train", {0}).images("test", {1, 2, 2}).labels("test", {1});
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(creation, (folder / "secret").c_str(), 0, 4);
  const hsize_t shape[] = {1, 2, 2};
  const hid_t space = H5Screate_simple(3, shape, nullptr);
  H5Dclose(H5Dcreate2(file, "train/images", H5T_NATIVE_UINT8, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(creation);
  H5Fclose(file);
  expect_error(ExitCode::kFailure, {path + ":train/images", "its values lie in another file", "copy them"},
               [&] { load_dataset({.kind = "hdf5", .path = path}); });
}

// A link to another HDF5 file is read, and that file is one of the data's.
TEST(Hdf5, FilesBehindLinksAreNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "data.h5", other = folder / "other.h5";
  Writer(path).labels("train", {0}).images("test", {1, 2, 2}).labels("test", {1});
  Writer(other).images("train", {1, 2, 2});
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  H5Lcreate_external("other.h5", "train/images", file, "train/images", H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);
  EXPECT_EQ(load_dataset({.kind = "hdf5", .path = path}).train.count, 1);
  EXPECT_EQ(data_files({.kind = "hdf5", .path = path}), (std::vector<std::string>{path, other}));
}

// HDF5 would open a pipe, and wait for a writer.
TEST(Hdf5, LinksToPipesAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "data.h5", pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_error(ExitCode::kUsage, {pipe, "a pipe", "HDF5 file"}, [&] { load_dataset({.kind = "hdf5", .path = pipe}); });
  for (const std::string& link : {std::string("pipe"), pipe}) {
    Writer(path).labels("train", {0}).images("test", {1, 2, 2}).labels("test", {1});
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    H5Lcreate_external(link.c_str(), "images", file, "train/images", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    expect_error(ExitCode::kFailure, {path + ":train/images", "leads to " + pipe, "is no file"},
                 [&] { load_dataset({.kind = "hdf5", .path = path}); });
  }
}

TEST(Hdf5, AVirtualDatasetIsRefusedWithoutALookAtItsSources) {
  const TemporaryFolder folder;
  const std::string path = folder / "data.h5", pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  Writer(path).labels("train", {0}).images("test", {1, 2, 2}).labels("test", {1});
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t shape[] = {1, 2, 2}, most[] = {H5S_UNLIMITED, 2, 2}, start[] = {0, 0, 0},
                count[] = {H5S_UNLIMITED, 1, 1};
  const hid_t space = H5Screate_simple(3, shape, most);
  const hsize_t block[] = {1, 2, 2};
  H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, block);
  ASSERT_GE(H5Pset_virtual(creation, space, pipe.c_str(), "images", space), 0);
  const hid_t dataset = H5Dcreate2(file, "train/images", H5T_NATIVE_UINT8, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  H5Dclose(dataset);
  H5Sclose(space);
  H5Pclose(creation);
  H5Fclose(file);
  expect_error(ExitCode::kFailure, {path + ":train/images", "its values lie in another file", "copy them"},
               [&] { load_dataset({.kind = "hdf5", .path = path}); });
}

// As h5py's compression="lzf", whose filter comes with h5py and not with the library.
TEST(Hdf5, AFilterThatThisMachineLacksIsNamed) {
  constexpr H5Z_filter_t kFilter = 32000;
  const auto as_it_is = [](unsigned, std::size_t, const unsigned*, std::size_t bytes, std::size_t*, void**) {
    return bytes;
  };
  const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, kFilter, 1, 1, "lzf", nullptr, nullptr, as_it_is};
  const TemporaryFolder folder;
  const std::string path = folder / "data.h5";
  Writer(path).images("train", {2, 2, 2}).labels("train", {0, 1}).images("test", {1, 2, 2});
  H5Zregister(&filter);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t one = 1;
  const std::int64_t label = 0;
  H5Pset_chunk(creation, 1, &one);
  H5Pset_filter(creation, kFilter, H5Z_FLAG_OPTIONAL, 0, nullptr);
  const hid_t space = H5Screate_simple(1, &one, nullptr);
  const hid_t labels = H5Dcreate2(file, "test/labels", H5T_NATIVE_INT64, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  H5Dwrite(labels, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &label);
  H5Dclose(labels), H5Sclose(space), H5Pclose(creation), H5Fclose(file);
  H5Zunregister(kFilter);
  expect_error(ExitCode::kFailure, {":test/labels: is compressed with the filter 32000 (lzf)", "gzip"},
               [&] { load_dataset({.kind = "hdf5", .path = path}); });
}

TEST(Hdf5, LabelOutOfRange) {
  const auto with_labels = [](const std::vector<std::int64_t>& labels, std::int32_t classes) {
    return [=](Writer& file) {
      file.images("train", {2, 2, 2}).labels("train", labels).images("test", {1, 2, 2}).labels("test", {0});
      file.classes(classes);
    };
  };
  expect_bad({":train/labels", "label 3", "sample 1", "0 to 2"}, with_labels({0, 3}, 3));
  expect_bad({":train/labels", "label -1", "sample 1"}, with_labels({0, -1}, 3));
  expect_bad({":train/labels", "sample 0"}, with_labels({std::int64_t{1} << 40, 0}, 3));
  expect_bad({"classes"}, with_labels({0, 0}, 0));
  expect_bad({"classes", "16777216"}, with_labels({0, 0}, (1 << 24) + 1));
}

TEST(Hdf5, AStrayLabelMakesNoClasses) {
  const auto with_labels = [](std::int64_t train, std::int64_t test) {
    return [=](Writer& file) {
      file.images("train", {3, 2, 2}).labels("train", {0, 1, train}).images("test", {1, 2, 2}).labels("test", {test});
    };
  };
  EXPECT_EQ(load(with_labels(3, 0)).classes, 4) << "as many as there are samples";
  expect_bad({":train/labels", "label 4 of sample 2", "5 classes", "4 samples", "attribute `classes`"},
             with_labels(4, 0));
  expect_bad({":test/labels", "label 16000000 of sample 0", "4 samples", "attribute `classes`"},
             with_labels(0, 16'000'000));
  const Dataset data = load([&](Writer& file) {
    with_labels(0, 16'000'000)(file);
    file.classes(1 << 24);
  });
  EXPECT_EQ(data.classes, 1 << 24) << "where the file says so, it is so";
}

TEST(Hdf5, LabelsAloneMakeAtMost65536Classes) {
  const auto with_label = [](std::int64_t label) {
    return [=](Writer& file) {
      std::vector<std::int64_t> labels(70'000, 0);
      labels[1234] = label;
      file.images("train", {70'000, 1, 1}).labels("train", labels).images("test", {1, 1, 1}).labels("test", {0});
    };
  };
  EXPECT_EQ(load(with_label(65'535)).classes, 65'536);
  expect_bad({"label 65536 of sample 1234", "attribute `classes`"}, with_label(65'536));
}

}  // namespace
}  // namespace switchyard
