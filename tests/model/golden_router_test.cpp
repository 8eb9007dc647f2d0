// Every router against golden values from independent PyTorch models in double precision, whose files name the router
// and its options: the same routes, logits, auxiliary losses and gradients, on any number of ranks.
#include <gtest/gtest.h>

#include "model/golden_model.hpp"

namespace switchyard::testing {
namespace {

ModelOptions options_of(const GoldenFile& file) {
  ModelOptions options = golden_options(file, file.text("router"));
  options.ffn.shared = file.integer("shared");
  RouterOptions& router = options.ffn.router;
  router.top_k = file.integer("top_k");
  router.scores = file.text("scores");
  router.renormalise = file.integer("renormalise") != 0;
  router.z_loss = file.real("/", "z_loss");
  router.importance_loss = file.real("/", "importance_loss");
  router.load_loss = file.real("/", "load_loss");
  router.noise_floor = router.name == "noisy_top_k" ? file.real("/", "noise_floor") : router.noise_floor;
  router.capacity_train = file.real("/", "capacity_train");
  router.capacity_order = file.text("capacity_order");
  return options;
}

// The file holds (layers, microbatches, row); an outcome the rows of this rank's microbatches, layer by layer.
void expect_rows(const std::vector<std::vector<std::int32_t>>& found, const std::vector<std::int32_t>& all,
                 Index microbatches, Index layers, const std::string& name) {
  const Index local = microbatches / world_size(), row = static_cast<Index>(all.size()) / (layers * microbatches);
  ASSERT_EQ(static_cast<Index>(found.size()), local * layers) << name;
  for (Index i = 0; i < local; ++i) {
    for (Index layer = 0; layer < layers; ++layer) {
      const auto first = all.begin() + (layer * microbatches + world_rank() * local + i) * row;
      EXPECT_EQ(found[static_cast<std::size_t>(i * layers + layer)], std::vector(first, first + row))
          << name << " of layer " << layer << ", microbatch " << i << " of rank " << world_rank();
    }
  }
}

class GoldenRouter : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenRouter, RoutesLossesAndGradients) {
  const GoldenFile file(GetParam());
  const Batch batch = golden_batch(file);
  for (Index expert_parallel = 1; expert_parallel <= world_size(); expert_parallel *= 2) {
    SCOPED_TRACE("expert-parallel size " + std::to_string(expert_parallel));
    Mesh mesh(world_communicator(), expert_parallel);
    SmallModel model(options_of(file), mesh);
    load_parameters(file, model);
    const Outcome outcome = model.run(batch, {.seed = static_cast<std::uint64_t>(file.integer("seed"))});

    const Index count = batch.num_microbatches(), layers = file.integer("layers");
    expect_rows(outcome.experts, file.integers("experts"), count, layers, "experts");
    expect_rows(outcome.tokens_per_expert, file.integers("tokens_per_expert"), count, layers, "tokens per expert");
    expect_close(outcome.logits, share_of(file.floats("logits"), mesh.world()), "logits");
    EXPECT_NEAR(outcome.loss, file.floats("loss")[0], 1e-5);
    for (const auto& [name, found] :
         {std::pair{"balance_loss", outcome.auxiliary.balance}, std::pair{"z_loss", outcome.auxiliary.z},
          std::pair{"importance_loss", outcome.auxiliary.importance}, std::pair{"load_loss", outcome.auxiliary.load}})
      expect_close({static_cast<float>(found)}, file.floats(name), name);
    expect_gradients(file, model, outcome);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenRouter,
                         ::testing::Values("top_k", "top_k_sigmoid", "top_k_capacity", "noisy_top_k",
                                           "noisy_top_k_floor", "loss_free", "expert_choice", "switch_capacity",
                                           "hash"),
                         [](const auto& file) { return std::string(file.param); });

// Without these the files could not tell a router from a simpler one.
TEST(GoldenFiles, ShowWhatTheyAreFor) {
  const GoldenFile loss_free("loss_free");
  Mesh mesh(world_communicator(), 1);
  SmallModel model(options_of(loss_free), mesh);
  load_parameters(loss_free, model);
  const Outcome biased = model.run(golden_batch(loss_free), {});
  for (ParameterId id = 0; id < model.table().size(); ++id)
    if (contains(model.table()[id].name, "selection_bias"))
      model.set(id, std::vector<float>(static_cast<std::size_t>(model.size_of(id))));
  EXPECT_NE(model.run(golden_batch(loss_free), {}).experts, biased.experts);

  const GoldenFile capacity("switch_capacity");
  Index kept = 0;
  const std::vector<std::int32_t> experts = capacity.integers("experts");
  for (const std::int32_t tokens : capacity.integers("tokens_per_expert")) kept += tokens;
  EXPECT_LT(kept, static_cast<Index>(experts.size()));
  for (const char* name : {"balance_loss", "z_loss", "importance_loss"})
    EXPECT_GT(GoldenFile("top_k").floats(name)[0], 1e-3) << name;
  EXPECT_GT(GoldenFile("noisy_top_k").floats("load_loss")[0], 1e-3);
}

}  // namespace
}  // namespace switchyard::testing
