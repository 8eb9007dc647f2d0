// What Chen et al. (2208.02813) found, in small: a mixture of cubic experts learns what one linear network cannot, and
// tells the clusters apart.
#include <gtest/gtest.h>

#include <cmath>

#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

Config clusters_config(bool mixture, Index samples) {
  Config config;
  config.data.kind = "clusters";
  config.data.limit = samples;
  config.model.kind = "patch_cnn";
  config.ffn.kind = mixture ? "moe" : "dense";
  config.ffn.hidden = mixture ? 16 : 80;
  config.ffn.activation = mixture ? "cube" : "identity";
  config.ffn.experts = 8;
  config.ffn.router = "patch_sum";
  config.train.optimizer = mixture ? "normalized" : "adam";
  config.train.lr = mixture ? 1e-3 : 3e-3;
  config.train.schedule = "constant";
  config.train.dropout = 0;
  config.train.batch = samples;
  config.train.microbatch = samples / 4;
  return config;
}

TEST(Clusters, ExpertsLearnWhatOneNetworkCannot) {
  if (world_size() > 1) return;  // that other ranks learn the same is the next test's
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
