// A training that begins with the parameters of another one.
#include <gtest/gtest.h>

#include <algorithm>

#include "train/shared_folder.hpp"
#include "train/small_run.hpp"

namespace switchyard::testing {
namespace {

// Whether this rank's part of the parameter is the same in both.
bool same_values(const Trainer& a, const Trainer& b, ParameterId id) {
  const Index size = a.parameters().local_slices(id) * a.table()[id].slice_size();
  return std::equal(a.parameters().value(id), a.parameters().value(id) + size, b.parameters().value(id));
}

TEST(Start, WithParametersAlone) {
  const SharedFolder folder;
  Config config = config_of(kind_named("loss_free"));
  SmallRun first = run_on_all_ranks(config);
  first.train(3);
  first->save(*world_communicator(), folder / "first.h5");
  config.run.seed += 1;
  SmallRun second = run_on_all_ranks(config);
  ASSERT_NE(second->digest(), first->digest());
  second->start_from(*world_communicator(), folder / "first.h5");
  EXPECT_EQ(second->digest(), first->digest());
  EXPECT_EQ(second->step(), 0);
  EXPECT_TRUE(contains(second->origin(), "first.h5 after step 3, digest " + first->digest())) << second->origin();
  const StepMetrics metrics = second.train(1)[0];
  EXPECT_EQ(metrics.step, 1);
  EXPECT_EQ(metrics.learning_rate, config.train.lr / 2) << "the warm-up begins anew";

  second->save(*world_communicator(), folder / "second.h5");
  SmallRun resumed = run_on_all_ranks(config);
  resumed->load(*world_communicator(), folder / "second.h5");
  EXPECT_EQ(resumed->origin(), second->origin());
  second.train(2);
  resumed.train(2);
  EXPECT_EQ(resumed->digest(), second->digest());
}

// In all layouts, with weight decay on: nothing moves but leaves.
TEST(Start, TunesTheLeavesOfAHardTree) {
  const SharedFolder folder;
  const Config soft = config_of(kind_named("fff by itself"));
  ASSERT_GT(soft.train.weight_decay, 0);
  SmallRun hardened = run_on_all_ranks(soft);
  hardened.train(3);
  hardened->save(*world_communicator(), folder / "soft.h5");

  Config config = soft;
  config.ffn.tree = "hard";
  SmallRun alone = run_alone(config);
  alone->start_from(*make_local_communicator(), folder / "soft.h5");
  alone.train(3);
  for (const Index experts : expert_parallel_sizes(config, world_size())) {
    SCOPED_TRACE(experts);
    config.parallel.experts = experts;
    SmallRun loaded = run_on_all_ranks(config), tuned = run_on_all_ranks(config);
    for (SmallRun* run : {&loaded, &tuned}) (*run)->start_from(*world_communicator(), folder / "soft.h5");
    EXPECT_EQ(loaded->digest(), hardened->digest());
    tuned.train(3);
    EXPECT_EQ(tuned->digest(), alone->digest());
    for (ParameterId id = 0; id < tuned->table().size(); ++id) {
      const ParameterSpec& spec = tuned->table()[id];
      EXPECT_EQ(same_values(*loaded.operator->(), *tuned.operator->(), id), !spec.per_expert) << spec.name;
    }
  }
}

TEST(Start, WithAnotherModelIsRefused) {
  const SharedFolder folder;
  Config config = config_of(kind_named("fff"));
  run_on_all_ranks(config)->save(*world_communicator(), folder / "first.h5");
  config.ffn.leaf = 5;
  SmallRun other = run_on_all_ranks(config);
  const std::string digest = other->digest(),
                    message = message_of([&] { other->start_from(*world_communicator(), folder / "first.h5"); });
  for (const char* part : {"first.h5", "parameters/blocks.0.leaves.w1", "(8, 4, 16)", "(8, 5, 16)"})
    EXPECT_TRUE(contains(message, part)) << part << ": " << message;
  EXPECT_EQ(other->digest(), digest);
}

}  // namespace
}  // namespace switchyard::testing
