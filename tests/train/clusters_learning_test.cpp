// What Chen et al. (2208.02813) found, in small: a mixture of cubic experts learns what one linear network cannot, and
// tells the clusters apart. On one rank: clusters_test.cpp says that others learn the same.
#include <gtest/gtest.h>

#include <cmath>

#include "train/clusters_config.hpp"
#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

TEST(Clusters, ExpertsLearnWhatOneNetworkCannot) {
  SmallRun experts = run_alone(clusters_config(true, 4000)), single = run_alone(clusters_config(false, 4000));
  const double entropy_before = experts->dispatch_entropy().value();
  experts.train(300);
  single.train(300);
  EXPECT_GT(entropy_before, 1.37) << "a router of zeros knows nothing";
  EXPECT_LT(experts->dispatch_entropy().value(), 0.7);
  EXPECT_GT(experts->evaluate().accuracy, 90);
  EXPECT_LT(single->evaluate().accuracy, 80);
  EXPECT_GE(experts->evaluate().loss, std::log1p(std::exp(-1.0))) << "the floor of a softmax of a softmax";
  EXPECT_FALSE(single->dispatch_entropy().has_value());
}

}  // namespace
}  // namespace switchyard::testing
