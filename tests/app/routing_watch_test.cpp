// When the program warns of an expert that starves or dominates, and in which words.
#include "app/routing_watch.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

using Words = std::vector<std::string>;

RoutingLoad load_of(Index experts, std::vector<float> tokens) {
  RoutingLoad load;
  load.layers = static_cast<Index>(tokens.size()) / experts;
  load.experts = experts;
  load.tokens = std::move(tokens);
  return load;
}

// Of the steps first, first + 1, ..., each with this load.
Words warnings(RoutingWatch& watch, Index first, Index count, const RoutingLoad& load) {
  Words all;
  for (Index step = first; step < first + count; ++step)
    for (const std::string& line : watch.step(step, load)) all.push_back(line);
  return all;
}

TEST(RoutingWatch, NamesTheExpertThatDominates) {
  RoutingWatch watch("switch", 1, {1, 3, 5});
  const RoutingLoad even = load_of(4, {25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25, 25});
  const RoutingLoad uneven = load_of(4, {25, 25, 25, 25, 10, 70, 10, 10, 6, 6, 7, 81});
  EXPECT_EQ(warnings(watch, 1, 2 * RoutingWatch::kWindow, even), Words{});
  EXPECT_EQ(warnings(watch, 101, RoutingWatch::kWindow - 1, uneven), Words{});
  EXPECT_EQ(warnings(watch, 150, 1, uneven),
            Words{"expert 3 of layer 5 takes 81 % of tokens since step 101: try ffn.balance_loss or ffn.router = "
                  "noisy_top_k"});
}

TEST(RoutingWatch, NamesTheExpertThatStarves) {
  RoutingWatch watch("switch", 1, {0, 1});
  const RoutingLoad uneven = load_of(4, {333, 331, 3, 333, 300, 300, 380, 20});
  EXPECT_EQ(warnings(watch, 240, RoutingWatch::kWindow, uneven),
            Words{"expert 2 of layer 0 has had 0.3 % of tokens since step 240: try ffn.balance_loss or ffn.router = "
                  "noisy_top_k"});
}

TEST(RoutingWatch, SaysEachOnce) {
  RoutingWatch watch("switch", 1, {0});
  const RoutingLoad starving = load_of(4, {34, 33, 33, 0}), collapsed = load_of(4, {0, 0, 100, 0});
  EXPECT_EQ(warnings(watch, 1, 50, starving).size(), 1u);
  EXPECT_EQ(warnings(watch, 51, 500, starving).size(), 0u);
  const Words dominates = warnings(watch, 551, 500, collapsed);
  ASSERT_EQ(dominates.size(), 1u);
  EXPECT_TRUE(dominates[0].starts_with("expert 2 of layer 0 takes 100 % of tokens since step 551")) << dominates[0];
}

TEST(RoutingWatch, ThresholdsAreHalfwayToAllAndATenthOfAnEvenShare) {
  const auto warned = [](Index top_k, const RoutingLoad& load) {
    RoutingWatch watch("top_k", top_k, {0});
    return warnings(watch, 1, RoutingWatch::kWindow, load).size();
  };
  // Two experts: 75 % and 5 %.
  EXPECT_EQ(warned(1, load_of(2, {75, 25})), 0u);
  EXPECT_EQ(warned(1, load_of(2, {751, 249})), 1u);
  EXPECT_EQ(warned(1, load_of(2, {96, 4})), 2u);
  // Ten of ten experts: 55 % and 1 %.
  EXPECT_EQ(warned(1, load_of(10, {55, 5, 5, 5, 5, 5, 5, 5, 5, 5})), 0u);
  EXPECT_EQ(warned(1, load_of(10, {56, 4, 5, 5, 5, 5, 5, 5, 5, 5})), 1u);
  EXPECT_EQ(warned(1, load_of(10, {189, 11, 100, 100, 100, 100, 100, 100, 100, 100})), 0u);
  EXPECT_EQ(warned(1, load_of(10, {110, 9, 110, 110, 110, 110, 110, 110, 110, 111})), 1u);
  // Two of four experts for each of 100 tokens: 75 % and 5 % of the tokens.
  EXPECT_EQ(warned(2, load_of(4, {75, 45, 40, 40})), 0u);
  EXPECT_EQ(warned(2, load_of(4, {76, 44, 40, 40})), 1u);
  EXPECT_EQ(warned(2, load_of(4, {65, 65, 66, 4})), 1u);
  // All of two experts.
  EXPECT_EQ(warned(2, load_of(2, {100, 100})), 0u);
}

// One expert a step, another one each time: even over a window.
TEST(RoutingWatch, JudgesWindowsNotSteps) {
  RoutingWatch watch("hash", 1, {0});
  for (Index step = 1; step <= 500; ++step) {
    std::vector<float> tokens(5, 0);
    tokens[static_cast<std::size_t>(step % 5)] = 100;
    EXPECT_EQ(watch.step(step, load_of(5, tokens)), Words{}) << step;
  }
}

TEST(RoutingWatch, AnEarlierWindowDoesNotCount) {
  RoutingWatch watch("switch", 1, {0});
  EXPECT_EQ(warnings(watch, 1, 500, load_of(2, {500, 500})), Words{});
  EXPECT_EQ(warnings(watch, 501, 50, load_of(2, {760, 240})).size(), 1u);
}

TEST(RoutingWatch, SaysNothingWhereUnevennessIsMeantOrMeansNothing) {
  RoutingWatch random("random", 1, {0}), single("switch", 1, {0}), idle("switch", 1, {0});
  EXPECT_EQ(warnings(random, 1, 500, load_of(2, {100, 0})), Words{});
  EXPECT_EQ(warnings(single, 1, 500, load_of(1, {100})), Words{});
  EXPECT_EQ(warnings(idle, 1, 500, load_of(4, {0, 0, 0, 0})), Words{});
}

TEST(RoutingWatch, AdvisesByRouter) {
  for (const auto& [router, part] : {std::pair{"hash", ": the hash is uneven"},
                                     {"noisy_top_k", ": try a higher ffn.importance_loss"},
                                     {"loss_free", ": try a higher ffn.bias_rate"}}) {
    RoutingWatch watch(router, 1, {0});
    const Words said = warnings(watch, 1, 50, load_of(2, {80, 20}));
    ASSERT_EQ(said.size(), 1u);
    EXPECT_NE(said[0].find(part), std::string::npos) << said[0];
    EXPECT_EQ(said[0].find("balance_loss"), std::string::npos) << said[0];
  }
}

}  // namespace
}  // namespace switchyard
