// One expert can dominate, and three ways out: the runs of configs/collapse from the same unlucky start, judged by the
// coefficient of variation of the experts' loads.
#include <hdf5.h>

#include <numeric>

#include "core/h5.hpp"
#include "data/dataset.hpp"
#include "io/schema.hpp"
#include "program.hpp"

namespace switchyard::test {
namespace {

// (rows, layers) of a results file, flat.
std::vector<float> load_variation(const std::filesystem::path& results) {
  const h5::Handle file(H5Fopen(results.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  const h5::Handle dataset(H5Dopen2(file, io::schema::kRoutingLayerColumns[0].path, H5P_DEFAULT), H5Dclose);
  const h5::Handle space(H5Dget_space(dataset), H5Sclose);
  std::vector<float> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  return values;
}

class Collapse : public Program {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(default_path("fashion-mnist")))
      GTEST_SKIP() << "Fashion-MNIST (Debian package dataset-fashion-mnist) is not installed";
  }

  // Of the first and of the last 20 steps, mean over steps and layers.
  std::pair<double, double> variation_of(const std::string& name) {
    const Outcome outcome =
        run(1, {"train", "--config", std::string(SWITCHYARD_CONFIGS) + "/collapse/" + name + ".cfg"});
    EXPECT_EQ(outcome.code, 0) << outcome;
    const std::vector<float> values = load_variation(path("runs/collapse-" + name + "/results.h5"));
    const auto size = static_cast<std::ptrdiff_t>(values.size() / 5);  // 20 of 100 steps
    return {std::accumulate(values.begin(), values.begin() + size, 0.0) / static_cast<double>(size),
            std::accumulate(values.end() - size, values.end(), 0.0) / static_cast<double>(size)};
  }
};

constexpr double kAllToOneOfFour = 1.7320508;  // sqrt(E - 1): one expert takes every token

TEST_F(Collapse, APlainGateStaysWithOneExpert) {
  const auto [first, last] = variation_of("plain");
  EXPECT_GT(first, 0.9 * kAllToOneOfFour);
  EXPECT_GT(last, 0.9 * kAllToOneOfFour);
}

TEST_F(Collapse, NoiseBalanceLossAndLossFreeBiasGetOut) {
  for (const char* name : {"noise", "balance", "loss_free"}) {
    SCOPED_TRACE(name);
    const auto [first, last] = variation_of(name);
    EXPECT_GT(first, 1);
    EXPECT_LT(last, 0.7);
  }
}

}  // namespace
}  // namespace switchyard::test
