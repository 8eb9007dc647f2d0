// Every backward pass against finite differences of the model's own loss, with dropout, crops and flips on: the random
// numbers of a step are a function of their place, so the same step can be taken again with a parameter moved.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "model/kinds.hpp"
#include "model/small_model.hpp"

namespace switchyard::testing {
namespace {

// Gates far from a tie, so that a small move changes few routes; other parameters away from their ones and zeros.
void fill_parameters(SmallModel& model) {
  model.parameters().initialize(Cpu(), 17);
  for (ParameterId id = 0; id < model.table().size(); ++id) {
    float* values = model.parameters().values() + model.parameters().offset(id);
    const std::vector<float> noise = random_floats(model.size_of(id), 40 + static_cast<std::uint64_t>(id));
    const bool gate = contains(model.table()[id].name, "gate.weight");
    const bool starts_at_zero = model.table()[id].initializer.kind == Initializer::Kind::kZeros;
    for (Index i = 0; i < model.size_of(id); ++i) {
      const float own = noise[static_cast<std::size_t>(i)];
      values[i] = !gate ? values[i] + 0.1f * own : starts_at_zero ? 2 * own : 6 * values[i];
    }
  }
}

constexpr PassOptions kPass{.seed = 5, .training = true, .dropout = 0.25f};
constexpr float kStep = 4e-3f;
// Rounding of the losses gives about 1e-7 / kStep, the third derivative kStep^2 of itself.
constexpr double kAbsolute = 1e-4, kRelative = 5e-3;

double loss_of(const Batch& batch, const Outcome& outcome) {
  return std::accumulate(outcome.losses.begin(), outcome.losses.end(), 0.0) / static_cast<double>(batch.samples) +
         outcome.auxiliary.total();
}

// The same step with one parameter moved both ways.
struct Moved {
  Outcome up, down;
  double distance = 0;

  double slope(const std::function<double(const Outcome&)>& loss) const { return (loss(up) - loss(down)) / distance; }
  // A gradient is that of routes as they are.
  bool keeps_routes(const Outcome& start) const {
    return up.experts == start.experts && down.experts == start.experts &&
           up.tokens_per_expert == start.tokens_per_expert && down.tokens_per_expert == start.tokens_per_expert;
  }
};

Moved move(SmallModel& model, const Batch& batch, Index place) {
  const float before = model.parameters().values()[place];
  const auto run_at = [&](float value) {
    model.parameters().values()[place] = value;
    return model.run(batch, kPass);
  };
  const float above = before + kStep, below = before - kStep;
  Moved moved{run_at(above), run_at(below), double{above} - double{below}};
  model.parameters().values()[place] = before;
  return moved;
}

class Gradients : public ::testing::TestWithParam<Kind> {};

TEST_P(Gradients, AreFiniteDifferencesOfTheLoss) {
  Mesh mesh(make_local_communicator(), 1);
  SmallModel model(GetParam().options, mesh);
  fill_parameters(model);
  const Batch batch = random_batch(GetParam().options, 6, 3);
  const Outcome start = model.run(batch, kPass);

  Index num_checked = 0, num_large = 0;
  double largest[std::size(kAuxiliaryLosses)] = {};  // slope of each auxiliary loss alone
  for (ParameterId id = 0; id < model.table().size(); ++id) {
    if (!model.table()[id].trained) continue;
    Index num_of_parameter = 0;
    for (std::uint32_t draw = 0; draw < 16 && num_of_parameter < 6; ++draw) {
      const auto i = static_cast<Index>(to_below(random_words({.seed = 9}, static_cast<std::uint32_t>(id), draw)[0],
                                                 static_cast<std::uint32_t>(model.size_of(id))));
      const Index place = model.parameters().offset(id) + i;
      const Moved moved = move(model, batch, place);
      if (!moved.keeps_routes(start)) continue;
      ++num_of_parameter;
      const double slope = moved.slope([&](const Outcome& outcome) { return loss_of(batch, outcome); });
      num_large += std::abs(slope) > 20 * kAbsolute;
      EXPECT_NEAR(start.gradients[static_cast<std::size_t>(place)], slope, kAbsolute + kRelative * std::abs(slope))
          << model.table()[id].name << "[" << i << "]";
      for (std::size_t l = 0; l < std::size(kAuxiliaryLosses); ++l)
        largest[l] =
            std::max(largest[l], std::abs(moved.slope([member = kAuxiliaryLosses[l].second](const Outcome& outcome) {
                       return outcome.auxiliary.*member;
                     })));
    }
    num_checked += num_of_parameter;
  }
  EXPECT_GT(num_checked, 3 * model.table().size()) << "most moves change a route";
  EXPECT_GT(num_large, num_checked / 3) << "most slopes are within the tolerance of 0: this test could not fail";
  for (std::size_t l = 0; l < std::size(kAuxiliaryLosses); ++l) {
    if (GetParam().shows_losses && start.auxiliary.*kAuxiliaryLosses[l].second > 0) {
      EXPECT_GT(largest[l], 50 * kAbsolute)
          << "the " << kAuxiliaryLosses[l].first << " loss moves too little to be seen";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Gradients, ::testing::ValuesIn(all_kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST(Passes, DropoutAndAugmentationAreOnInTrainingOnly) {
  const auto losses_of = [](const ModelOptions& options, float dropout, bool training, std::uint64_t seed) {
    Mesh mesh(make_local_communicator(), 1);
    SmallModel model(options, mesh);
    fill_parameters(model);
    return model.run(random_batch(options, 6, 3), {.seed = seed, .training = training, .dropout = dropout}).losses;
  };
  ModelOptions as_it_is = small_options();
  as_it_is.crop_padding = 0, as_it_is.flip = false;
  const auto losses = [&](float dropout, bool augment, bool training, std::uint64_t seed) {
    return losses_of(augment ? small_options() : as_it_is, dropout, training, seed);
  };
  const auto plain = losses(0, false, true, 5);
  EXPECT_NE(losses(0.25f, false, true, 5), plain);
  EXPECT_NE(losses(0, true, true, 5), plain);
  EXPECT_NE(losses(0.25f, false, true, 6), losses(0.25f, false, true, 5));
  EXPECT_EQ(losses(0, false, false, 5), plain);
  EXPECT_EQ(losses(0, true, false, 5), plain);
  const std::function<void(ModelOptions&)> changes[] = {
      [](ModelOptions& o) { o.flip_vertical = true; }, [](ModelOptions& o) { o.rotation = 30; },
      [](ModelOptions& o) { o.scaling = 0.2; }, [](ModelOptions& o) { o.input_dropout = 0.25; }};
  for (const auto& change : changes) {
    ModelOptions options = as_it_is;
    change(options);
    EXPECT_NE(losses_of(options, 0, true, 5), plain);
    EXPECT_NE(losses_of(options, 0, true, 6), losses_of(options, 0, true, 5));
    EXPECT_EQ(losses_of(options, 0, false, 5), plain);
  }
}

TEST(Passes, APlaceInTheBatchHasItsOwnDraws) {
  // One image six times over, in one pass or two: without dropout all losses are the same, with it no two.
  ModelOptions options = small_options();
  options.crop_padding = 0;
  options.flip = false;
  Batch batch = random_batch(options, 6, 3);
  const auto bytes = static_cast<std::ptrdiff_t>(batch.images.size()) / batch.samples;
  for (Index sample = 1; sample < batch.samples; ++sample)
    std::copy_n(batch.images.begin(), bytes, batch.images.begin() + sample * bytes);
  batch.labels.assign(batch.labels.size(), 2);
  const auto num_different = [&](float dropout, double consistency, double input_dropout = 0) {
    options.consistency = consistency;
    options.input_dropout = input_dropout;
    Mesh mesh(make_local_communicator(), 1);
    SmallModel model(options, mesh);
    fill_parameters(model);
    std::vector<float> losses = model.run(batch, {.seed = 5, .training = true, .dropout = dropout}).losses;
    std::sort(losses.begin(), losses.end());
    return std::unique(losses.begin(), losses.end()) - losses.begin();
  };
  EXPECT_EQ(num_different(0, 0), 1);
  EXPECT_EQ(num_different(0.25f, 0), batch.samples);
  EXPECT_EQ(num_different(0, 1), 1);
  EXPECT_EQ(num_different(0.25f, 1), 2 * batch.samples);
  EXPECT_EQ(num_different(0, 0, 0.25), batch.samples);
  EXPECT_EQ(num_different(0, 1, 0.25), 2 * batch.samples);
}

// Without anything drawn for layers, both passes answer as a single one does: they see the same crops and flips.
TEST(Passes, TwoPassesSeeTheSameImages) {
  for (const char* router : {"dense", "switch", "hash"}) {
    SCOPED_TRACE(router);
    const auto run = [&](bool twice, float dropout) {
      ModelOptions options = kind_named(router);
      options.consistency = twice ? 1 : 0;
      Mesh mesh(make_local_communicator(), 1);
      SmallModel model(options, mesh);
      fill_parameters(model);
      return model.run(random_batch(options, 6, 3), {.seed = 5, .training = true, .dropout = dropout});
    };
    const Outcome once = run(false, 0), twice = run(true, 0), dropped = run(true, 0.25f);
    ASSERT_EQ(once.losses.size(), 6u);
    ASSERT_EQ(twice.losses.size(), 12u);
    for (std::size_t microbatch = 0; microbatch < 2; ++microbatch)
      for (std::size_t i = 0; i < 6; ++i)
        EXPECT_EQ(twice.losses[6 * microbatch + i], once.losses[3 * microbatch + i % 3]) << microbatch << ", " << i;
    if (router != std::string("switch")) {
      EXPECT_EQ(twice.auxiliary.total(), 0);
      EXPECT_GT(dropped.auxiliary.consistency, 0);
    }
  }
}

TEST(Passes, TwoPassesGoToOtherExperts) {
  ModelOptions options = kind_named("random_twice");
  options.ffn.router.granularity = "batch";
  Mesh mesh(make_local_communicator(), 1);
  SmallModel model(options, mesh);
  fill_parameters(model);
  Index num_different = 0;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const Outcome outcome = model.run(random_batch(options, 6, 3), {.seed = seed});
    for (const std::vector<std::int32_t>& experts : outcome.experts) EXPECT_EQ(experts, outcome.experts[0]);
    const bool different = outcome.experts[0].front() != outcome.experts[0].back();
    num_different += different;
    EXPECT_EQ(outcome.auxiliary.consistency > 0, different) << seed;
    EXPECT_EQ(outcome.losses[0] != outcome.losses[3], different) << seed;
  }
  EXPECT_GT(num_different, 4);
  EXPECT_EQ(model.run(random_batch(options, 6, 3), {.training = false}).losses.size(), 6u) << "evaluation is one pass";
}

TEST(Options, ThatCannotBeAreErrors) {
  const auto error_of = [](const std::function<void(ModelOptions&)>& change) {
    ModelOptions options = small_options();
    change(options);
    ParameterTable table;
    return message_of([&] { make_model(options, table); });
  };
  EXPECT_EQ(error_of([](ModelOptions&) {}), "");
  EXPECT_TRUE(contains(error_of([](ModelOptions& o) { o.patch = 3; }), "model.patch = 3 does not divide"));
  EXPECT_TRUE(contains(error_of([](ModelOptions& o) { o.patch = 3; }), "use model.patch = 2 or 4"));
  EXPECT_TRUE(contains(error_of([](ModelOptions& o) { o.heads = 5; }), "model.heads = 5 does not divide"));
  EXPECT_TRUE(contains(error_of([](ModelOptions& o) { o.positions = 5; }), "model.positions = 5 is less than the 6"));
  EXPECT_TRUE(
      contains(error_of([](ModelOptions& o) { o.ffn.kind = "maze"; }), "\"maze\" is not one of dense, moe, fff"));
}

// The seed study's models: CIFAR-10, 300 wide, 12 layers, 12 heads, feed-forward 1024.
TEST(Options, StoredAndActiveParametersOfTheStudysModels) {
  const auto count = [](const std::string& router) {
    ModelOptions options;
    options.image_height = options.image_width = 32;
    options.channels = 3;
    options.classes = 10;
    options.layers = options.heads = 12;
    options.width = 300;
    options.patch = 4;
    options.head_hidden = 3072;
    options.positions = 300;
    options.ffn.kind = router == "dense" ? "dense" : "moe";
    options.ffn.hidden = 1024;
    options.ffn.num_experts = router == "dense" ? 0 : 4;
    if (router != "dense") options.ffn.router.name = router;
    options.ffn.router.granularity = "batch";
    ParameterTable table;
    make_model(options, table);
    return std::pair{table.num_stored(), table.num_active(1)};
  };
  EXPECT_EQ(count("dense"), std::pair(Index{12798490}, Index{12798490}));
  EXPECT_EQ(count("switch"), std::pair(Index{34979002}, Index{12812938}));
  EXPECT_EQ(count("random"), std::pair(Index{34964554}, Index{12798490}));
}

TEST(Options, PlacesOfAForwardPassHaveNames) {
  ParameterTable table;
  const auto model = make_model(small_options(), table);
  const char* expected[] = {"embedding",          "blocks.0.attention", "blocks.0.ffn",
                            "blocks.1.attention", "blocks.1.ffn",       "head"};
  for (int place = 0; place < 6; ++place) EXPECT_EQ(model->place_name(place), expected[place]);
}

}  // namespace
}  // namespace switchyard::testing
