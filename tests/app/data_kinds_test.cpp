// Each kind of data trains from end to end.
#include "data_files.hpp"
#include "io/results.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

class DataKinds : public Program {
 protected:
  // Trains on two ranks, split and not split over experts: the run's summary.
  io::ResultsSummary expect_trains(const Words& data) {
    const Outcome outcome = train(2, data + Words{"--overwrite", "--parallel.experts", "2"});
    EXPECT_EQ(outcome.code, 0) << outcome;
    const Outcome alone = train(1, data + Words{"--overwrite"});
    EXPECT_EQ(alone.code, 0) << alone;
    EXPECT_EQ(outcome.digest(), alone.digest());
    return io::describe_results(run_folder() / "results.h5");
  }
};

TEST_F(DataKinds, FashionMnist) {
  if (!fs::exists(FASHION_MNIST)) GTEST_SKIP() << FASHION_MNIST << ": package dataset-fashion-mnist is not installed";
  const auto results = expect_trains({"--data.kind", "fashion-mnist", "--data.limit", "500", "--model.patch", "7",
                                      "--run.epochs", "8", "--train.lr", "0.01", "--data.crop_padding", "0"});
  EXPECT_EQ(results.num_steps, 80) << "8 epochs of 500 / 48 batches";
  ASSERT_EQ(results.evaluations.size(), 8u);
  EXPECT_GT(results.evaluations.back().accuracy, 0.4) << "it learns: 0.1 is chance";
}

TEST_F(DataKinds, Mnist) {
  write_mnist(path("mnist"));
  EXPECT_EQ(expect_trains({"--data.kind", "mnist", "--data.path", "mnist", "--model.patch", "7"}).num_steps, 6);
}

TEST_F(DataKinds, Cifar10) {
  write_cifar10(path("cifar"));
  EXPECT_EQ(expect_trains({"--data.kind", "cifar10", "--data.path", "cifar", "--model.patch", "8"}).num_steps, 6);
}

// The first N of each split, over the borders of files.
TEST_F(DataKinds, LimitTakesTheFirstSamples) {
  write_cifar10(path("cifar"));
  const auto results =
      expect_trains({"--data.kind", "cifar10", "--data.path", "cifar", "--model.patch", "8", "--data.limit", "50"});
  EXPECT_EQ(results.num_steps, 3) << "3 epochs of 50 / 48 batches";

  // What lies behind the limit is not looked at.
  const Words limited = {"--data.kind", "cifar10",      "--data.path", "cifar",      "--model.patch",
                         "8",           "--data.limit", "50",          "--overwrite"};
  const Outcome before = train(2, limited);
  write_file(path("cifar/data_batch_5.bin"), "not a record");
  const Outcome after = train(2, limited);
  EXPECT_EQ(after.code, 0) << after;
  EXPECT_EQ(after.digest(), before.digest());
}

// The four lines that a user writes.
TEST_F(DataKinds, Hdf5FromPython) {
  folder_.write("write.py", R"(
import h5py, numpy
with h5py.File("data.h5", "w") as file:
    for split, count in ("train", 100), ("test", 30):
        labels = numpy.arange(count) % 7
        file[split + "/labels"] = labels
        file[split + "/images"] = (labels[:, None, None, None] * 30 + numpy.arange(18 * 12 * 3).reshape(18, 12, 3) % 40).astype("uint8")
)");
  if (Running({PYTHON, "-c", "import h5py, numpy"}, folder_.path()).wait().code != 0)
    GTEST_SKIP() << PYTHON << " has no h5py";
  const Outcome written = Running({PYTHON, "write.py"}, folder_.path()).wait();
  ASSERT_EQ(written.code, 0) << written;
  EXPECT_EQ(expect_trains({"--data.kind", "hdf5", "--data.path", "data.h5", "--model.patch", "6"}).num_steps, 6);
}

}  // namespace
}  // namespace switchyard::test
