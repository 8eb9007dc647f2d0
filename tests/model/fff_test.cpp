// Fast feedforward networks against NumPy (golden/make_fff.py), and what holds of them in any layout.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "model/golden_model.hpp"

namespace switchyard::testing {
namespace {

ModelOptions fff_options(const GoldenFile& file) {
  ModelOptions options;
  options.kind = "mlp";
  options.image_height = options.image_width = file.integer("image_size");
  options.channels = file.integer("channels");
  options.classes = file.integer("classes");
  options.ffn.kind = "fff";
  options.ffn.num_experts = Index{1} << file.integer("depth");
  options.ffn.tree = {.depth = file.integer("depth"),
                      .leaf = file.integer("leaf"),
                      .hardening = file.real("/", "hardening"),
                      .region_leak = file.real("/", "region_leak")};
  options.mean.fill(0.5f);
  options.deviation.fill(0.5f);
  return options;
}

class Fff : public ::testing::TestWithParam<Index> {
 protected:
  const GoldenFile file{"fff"};
  Mesh mesh{world_communicator(), std::min<Index>(GetParam(), world_communicator()->size())};
  const PassOptions training{.seed = static_cast<std::uint64_t>(file.integer("seed")), .training = true};
};

TEST_P(Fff, TrainingAndEveryGradientAreThoseOfNumPy) {
  SmallModel model(fff_options(file), mesh);
  load_parameters(file, model);
  const Outcome outcome = model.run(golden_batch(file), training);
  expect_close(outcome.logits, share_of(file.floats("logits"), mesh.world()), "logits");
  EXPECT_NEAR(outcome.loss, file.floats("loss")[0], 1e-6);
  EXPECT_NEAR(outcome.auxiliary.hardening, file.floats("hardening_loss")[0], 1e-6);
  expect_gradients(file, model, outcome);
}

TEST_P(Fff, EvaluationTakesOneLeaf) {
  SmallModel model(fff_options(file), mesh);
  load_parameters(file, model);
  const Outcome outcome = model.run(golden_batch(file), {.training = false});
  expect_close(outcome.logits, share_of(file.floats("hard_logits"), mesh.world()), "logits");
}

TEST_P(Fff, WithSaturatedNodesTrainingAndEvaluationGiveTheSame) {
  ModelOptions options = fff_options(file);
  options.ffn.tree.region_leak = 0;
  SmallModel model(options, mesh);
  load_parameters(file, model);
  for (ParameterId id = 0; id < model.table().size(); ++id)
    if (contains(model.table()[id].name, "tree.")) {
      float* values = model.parameters().values() + model.parameters().offset(id);
      for (Index i = 0; i < model.size_of(id); ++i) values[i] *= 1e4f;
    }
  const Outcome soft = model.run(golden_batch(file), training);
  const Outcome hard = model.run(golden_batch(file), {.training = false});
  expect_close(soft.logits, hard.logits, "logits");
}

TEST_P(Fff, HardTreesTrainLeavesAlone) {
  ModelOptions options = fff_options(file);
  options.ffn.tree.region_leak = 0;
  options.ffn.tree.hard = true;
  SmallModel model(options, mesh);
  load_parameters(file, model);
  const Outcome outcome = model.run(golden_batch(file), training);
  expect_close(outcome.logits, share_of(file.floats("hard_logits"), mesh.world()), "logits");
  for (ParameterId id = 0; id < model.table().size(); ++id) {
    EXPECT_EQ(model.table()[id].trained, !contains(model.table()[id].name, "tree.")) << model.table()[id].name;
    if (!model.table()[id].trained || mesh.expert_group().size() > 1) continue;  // no token may come to a rank's leaves
    const auto first = outcome.gradients.begin() + model.parameters().offset(id);
    EXPECT_TRUE(std::any_of(first, first + model.size_of(id), [](float d) { return d != 0; }))
        << model.table()[id].name;
  }
}

INSTANTIATE_TEST_SUITE_P(ExpertParallel, Fff, ::testing::Values(1, 2, 4));

// Table 3 of the paper: neurons of a layer of training width 128, nodes and hidden units together.
TEST(FffSize, IsThatOfThePaper) {
  const std::pair<Index, Index> expected[] = {{32, 131}, {16, 135}, {8, 143}, {4, 159}, {2, 191}, {1, 255}};
  for (const auto& [leaf, neurons] : expected) {
    ModelOptions options;
    options.kind = "mlp";
    options.image_height = options.image_width = 8;
    options.channels = 2;
    options.classes = 10;
    options.ffn.kind = "fff";
    options.ffn.num_experts = 128 / leaf;
    options.ffn.tree.depth = std::countr_zero(static_cast<std::uint64_t>(128 / leaf));
    options.ffn.tree.leaf = leaf;
    options.ffn.router.name = "noisy_top_k";  // of which a tree takes no notice
    ParameterTable table;
    make_model(options, table);
    Index counted = 0;
    for (ParameterId id = 0; id < table.size(); ++id)
      if (contains(table[id].name, "tree.bias") || contains(table[id].name, "leaves.b1")) counted += table[id].size();
    EXPECT_EQ(counted, neurons) << leaf;
    // A token meets one node a level, and one leaf.
    const Index depth = options.ffn.tree.depth, width = 128;
    EXPECT_EQ(table.num_active(options.ffn.parts_per_token()),
              depth * (width + 1) + leaf * (width + 1) + (leaf + 1) * 10)
        << leaf;
  }
}

}  // namespace
}  // namespace switchyard::testing
