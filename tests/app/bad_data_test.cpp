// Data that is missing, cut short, damaged or not what it should be.
#include "data_files.hpp"
#include "mistakes.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

class BadData : public Mistakes {
 protected:
  void SetUp() override {
    write_mnist(path("mnist"));
    write_cifar10(path("cifar"));
  }

  void expect_refused(const char* kind, const std::string& data, const Words& parts, int code = kFailure) {
    const std::string message =
        expect_message(2, training({"--data.kind", kind, "--data.path", data, "--model.patch", "4"}), code, parts);
    EXPECT_EQ(message.find("rank"), std::string::npos) << "every rank found the same: " << message;
    EXPECT_FALSE(fs::exists(path("runs")));
  }
};

TEST_F(BadData, WithoutAMistakeItTrains) {
  for (const Words& data : {Words{"mnist", "mnist"}, {"cifar10", "cifar"}}) {
    const Outcome outcome =
        train(2, {"--run.name", data[0], "--data.kind", data[0], "--data.path", data[1], "--run.steps", "2"});
    EXPECT_EQ(outcome.code, 0) << outcome;
  }
}

TEST_F(BadData, FolderMissing) {
  expect_refused("mnist", "nowhere", {"nowhere", "no such folder", "data.path"}, kUsage);
  expect_refused("cifar10", "nowhere", {"nowhere", "no such folder", "cifar-10-binary.tar.gz", "data.path"}, kUsage);
  expect_refused("fashion-mnist", "nowhere", {"nowhere", "no such folder", "data.path empty"}, kUsage);
  expect_refused("hdf5", "data.h5", {"data.h5", "no such file"}, kUsage);
  expect_message(1, training({"--data.kind", "hdf5"}), kUsage, {"data.kind = hdf5 needs data.path"});
}

TEST_F(BadData, FileMissing) {
  fs::remove(path("mnist/t10k-labels-idx1-ubyte.gz"));
  expect_refused("mnist", "mnist", {"mnist/t10k-labels-idx1-ubyte.gz", "no such file", "data.path"});
  fs::remove(path("cifar/data_batch_4.bin"));
  expect_refused("cifar10", "cifar", {"cifar/data_batch_4.bin", "no such file", "data.path"});
}

TEST_F(BadData, GzipCutShort) {
  const fs::path images = path("mnist/train-images-idx3-ubyte.gz");
  fs::resize_file(images, fs::file_size(images) / 2);
  expect_refused("mnist", "mnist", {"mnist/train-images-idx3-ubyte.gz", "truncated", "get it anew"});
}

TEST_F(BadData, IdxCutShort) {
  fs::remove(path("mnist/train-images-idx3-ubyte.gz"));
  write_file(path("mnist/train-images-idx3-ubyte"), idx_images(100).substr(0, 50'000));
  expect_refused("mnist", "mnist", {"mnist/train-images-idx3-ubyte", "truncated", "get it anew"});
}

TEST_F(BadData, GzipDamaged) {
  const fs::path images = path("mnist/train-images-idx3-ubyte.gz");
  std::fstream file(images, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(fs::file_size(images) / 2)) << "damage damage";
  file.close();
  expect_refused("mnist", "mnist", {"mnist/train-images-idx3-ubyte.gz", "corrupt", "get the file anew"});
}

TEST_F(BadData, AnotherKindOfFile) {
  fs::remove(path("mnist/train-images-idx3-ubyte.gz"));
  write_file(path("mnist/train-images-idx3-ubyte"), "%PDF-1.4 and so on");
  expect_refused("mnist", "mnist", {"mnist/train-images-idx3-ubyte", "25 50 44 46", "another kind of file"});
}

TEST_F(BadData, ImagesWithoutTheirLabels) {
  write_gzip(path("mnist/train-labels-idx1-ubyte.gz"), idx_labels(99));
  expect_refused("mnist", "mnist", {"100 images", "99 labels", "do not belong together"});
}

TEST_F(BadData, CifarCutShort) {
  fs::resize_file(path("cifar/data_batch_2.bin"), 20 * 3073 - 1);
  expect_refused("cifar10", "cifar", {"cifar/data_batch_2.bin", "61459 bytes", "3073", "get it anew"});
}

TEST_F(BadData, LabelOutOfRange) {
  std::string labels = idx_labels(100);
  labels[8 + 41] = 10;
  write_gzip(path("mnist/train-labels-idx1-ubyte.gz"), labels);
  expect_refused("mnist", "mnist", {"mnist/train-labels-idx1-ubyte.gz", "label 10", "sample 41", "0 to 9"});
  std::string records = cifar10_records(25);
  records[7 * 3073] = 23;
  write_file(path("cifar/test_batch.bin"), records);
  expect_refused("cifar10", "cifar", {"cifar/test_batch.bin", "label 23", "sample 7", "0 to 9"});
}

TEST_F(BadData, NotAnHdf5File) {
  write_file(path("data.h5"), "images, labels\n");
  expect_refused("hdf5", "data.h5", {"data.h5", "HDF5"});
}

}  // namespace
}  // namespace switchyard::test
