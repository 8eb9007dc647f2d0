// The promise at the command line: one configuration, one result, on any number of ranks, with the experts split over
// any of them, on any number of threads. Dropout, random crops and flips are on.
#include "program.hpp"

namespace switchyard::test {
namespace {

struct Layout {
  int ranks, expert_ranks, threads;
};

struct Model {
  const char* name;
  Words settings;
  std::vector<Layout> layouts;  // held against one rank with one thread
};

class Promise : public Program, public testing::WithParamInterface<Model> {};

TEST_P(Promise, LayoutsAgree) {
  const auto& [name, settings, layouts] = GetParam();
  const Words once = settings + Words{"--overwrite", "--checkpoint.every", "1000"};
  const Outcome alone = train(1, once);
  ASSERT_EQ(alone.code, 0) << alone;
  EXPECT_EQ(alone.digest().size(), 32u);

  for (const Layout& layout : layouts) {
    SCOPED_TRACE(
        fmt::format("{} ranks, parallel.experts = {}, {} threads", layout.ranks, layout.expert_ranks, layout.threads));
    const Outcome outcome = train(layout.ranks, once + Words{"--parallel.experts", std::to_string(layout.expert_ranks),
                                                             "--parallel.threads", std::to_string(layout.threads)});
    ASSERT_EQ(outcome.code, 0) << outcome;
    EXPECT_EQ(outcome.digest(), alone.digest());
    EXPECT_EQ(outcome.test_line(), alone.test_line());
  }
}

// A digest that never changes would hold the promise, too.
TEST_F(Program, DigestsTellRunsApart) {
  const Outcome seed_3 = train(2, {"--overwrite"});
  const Outcome seed_4 = train(2, {"--overwrite", "--run.seed", "4"});
  const Outcome no_flip = train(2, {"--overwrite", "--data.flip", "false"});
  EXPECT_NE(seed_3.digest(), seed_4.digest());
  EXPECT_NE(seed_3.digest(), no_flip.digest());
}

Words random_router(const char* granularity, const char* inference) {
  return {"--ffn.router", "random", "--ffn.granularity", granularity, "--ffn.inference", inference};
}

INSTANTIATE_TEST_SUITE_P(
    Models, Promise,
    testing::Values(
        Model{"switch", {}, {{1, 1, 2}, {2, 1, 1}, {2, 2, 2}, {4, 2, 1}, {4, 4, 1}, {8, 1, 1}, {8, 4, 2}}},
        Model{"switch_average", {"--ffn.inference", "average", "--ffn.expert_init", "same"}, {{2, 2, 1}, {4, 4, 1}}},
        Model{"random_per_batch", random_router("batch", "average"), {{2, 2, 2}, {4, 1, 1}, {8, 2, 1}}},
        Model{"random_per_sample", random_router("sample", "route"), {{2, 1, 1}, {4, 4, 1}}},
        Model{"random_per_token", random_router("token", "average"), {{1, 1, 2}, {2, 2, 1}, {4, 2, 1}}},
        Model{"random_balanced", random_router("balanced", "route"), {{2, 2, 1}, {4, 4, 2}, {8, 4, 1}}},
        Model{"switch_bf16", {"--compute.dtype", "bf16"}, {{1, 1, 2}, {2, 2, 1}, {4, 4, 1}}},
        Model{"dense", {"--ffn.kind", "dense"}, {{1, 1, 2}, {2, 1, 1}, {4, 1, 1}, {8, 1, 1}}},
        Model{
            "dense_adamw_clipped",
            {"--ffn.kind", "dense", "--train.optimizer", "adamw", "--train.weight_decay", "0.1", "--train.clip", "0.5"},
            {{2, 1, 2}, {4, 1, 1}}}),
    [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace switchyard::test
