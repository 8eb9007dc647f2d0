// The mixture of convolutional experts on any number of ranks: what it learns, and how it tells the clusters apart.
#include <gtest/gtest.h>

#include "train/clusters_config.hpp"
#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

TEST(Clusters, NothingDependsOnTheLayout) {
  const Config config = clusters_config(true, 200);
  SmallRun alone = run_alone(config);
  alone.train(5);
  const double expected = alone->dispatch_entropy().value();
  for (const Index experts : expert_parallel_sizes(config, world_size())) {
    Config layout = config;
    layout.parallel.experts = experts;
    SmallRun together = run_on_all_ranks(layout);
    together.train(5);
    EXPECT_EQ(together->dispatch_entropy().value(), expected) << experts;
    EXPECT_EQ(together->digest(), alone->digest()) << experts;
  }
}

}  // namespace
}  // namespace switchyard::testing
