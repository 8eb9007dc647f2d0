// The table of `inspect --routing`: what its numbers are the means of, and that it stays readable for many experts.
#include "app/routing_table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "app/tree_table.hpp"

namespace switchyard {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::size_t columns_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// One layer, every expert with the same share.
std::vector<LayerRouting> even_layer(std::size_t experts) {
  LayerRouting layer;
  layer.share.assign(experts, 1 / static_cast<double>(experts));
  return {layer};
}

std::string table_of(const std::vector<LayerRouting>& layers, bool unicode) {
  return routing_table(layers, std::vector<std::string>(layers.size(), "11"), unicode);
}

TEST(RoutingTable, IsTheMeanOverRows) {
  const io::RoutingRow first{.step = 1,
                             .load = {30, 10, 20, 20},
                             .dropped = {5, 0, 0, 0},
                             .weight = {1, 1, 1, 1},
                             .load_cv = {0.5f, 0},
                             .max_over_mean = {1.5f, 1},
                             .load_entropy = {0.25f, 0.75f},
                             .gate_entropy = {kNaN, 0.5f},
                             .dead_experts = {0, 0.5f}},
      second{.step = 2,
             .load = {90, 30, 0, 0},
             .dropped = {3, 0, 0, 0},
             .weight = {1, 1, kNaN, kNaN},
             .load_cv = {0.25f, 0},
             .max_over_mean = {1.5f, 0},
             .load_entropy = {0.5f, 0.25f},
             .gate_entropy = {kNaN, kNaN},
             .dead_experts = {0.5f, 0.5f}};
  const std::vector<LayerRouting> layers = mean_routing({first, second}, {2, 2});
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].share, (std::vector<double>{0.75, 0.25}));
  EXPECT_EQ(layers[1].share, (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(layers[0].dropped, 0.05);
  EXPECT_EQ(layers[0].load_cv, 0.375);
  EXPECT_EQ(layers[0].max_over_mean, 1.5);
  EXPECT_EQ(layers[1].max_over_mean, 0.5);
  EXPECT_EQ(layers[0].load_entropy, 0.375);
  EXPECT_EQ(layers[0].dead, 0.25);
  EXPECT_TRUE(std::isnan(layers[0].gate_entropy));
  EXPECT_EQ(layers[1].gate_entropy, 0.5);
}

TEST(RoutingTable, ShowsFewExpertsWithNumbers) {
  LayerRouting layer{.share = {0.25, 0.625, 0.125, 0},
                     .load_cv = 0.9315,
                     .max_over_mean = 2.5,
                     .load_entropy = 0.9,
                     .dead = 0.25,
                     .dropped = 0.0123,
                     .gate_entropy = std::nan("")};
  EXPECT_EQ(lines_of(table_of({layer}, true))[2],
            "   11  ▄ 25 █ 62 ▂ 12 ·  0            0.93      2.50   0.90      -    25.0       1.23");
  EXPECT_EQ(lines_of(table_of({layer}, false))[2],
            "   11  = 25 @ 62 : 12 x  0            0.93      2.50   0.90      -    25.0       1.23");
}

TEST(RoutingTable, BarsGrowUpToTwiceAnEvenShare) {
  std::vector<double> share;
  for (int i = 0; i < 16; ++i) share.push_back(i / 64.0);  // sixteenths of an even share, up to 3.75 times it
  const std::string line = lines_of(table_of({{.share = share}}, true))[2];
  EXPECT_TRUE(line.starts_with("   11  ·▁▂▃▄▅▆▇████████ ")) << line;
}

TEST(RoutingTable, FitsA100ColumnsForAnyNumberOfExperts) {
  for (const std::size_t experts : {1u, 2u, 4u, 8u, 9u, 16u, 31u, 32u, 33u, 64u, 128u, 129u, 200u, 1000u, 4096u})
    for (const bool unicode : {false, true}) {
      SCOPED_TRACE(experts);
      std::vector<LayerRouting> layers = even_layer(experts);
      layers[0].share[0] = 1;  // a percentage of three digits
      const std::string text = table_of(layers, unicode);
      const auto lines = lines_of(text);
      for (const std::string& line : lines) EXPECT_LE(columns_of(line), 100u) << line;
      EXPECT_EQ(columns_of(lines[1]), columns_of(lines[2])) << text;
      EXPECT_LE(lines.size(), 8u) << text;
      EXPECT_EQ(std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; }),
                !unicode);
    }
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(RoutingTable, HasABarForEachExpertOrSaysOfHowMany) {
  for (const auto& [experts, bars] : {std::pair{std::size_t{16}, 16u}, {33, 33}, {128, 128}, {256, 128}, {300, 100}}) {
    const std::string text = table_of(even_layer(experts), true);
    EXPECT_EQ(count(text, "▄"), bars + 1) << text;  // and the legend's
    EXPECT_EQ(count(text, "experts a bar"), experts > 128 ? 1u : 0u) << text;
  }
  EXPECT_EQ(count(table_of(even_layer(300), true), "3 experts a bar"), 1u);
}

TEST(TreeTable, IsTheMeanOverRows) {
  // Two layers of four leaves: three nodes each.
  const io::TreeRow first{.step = 1,
                          .entropy = {0.25f, 0.5f, 0, 0.5f, 0.5f, 0.5f},
                          .share = {0.5f, 0.25f, 0.25f, 0, 0.25f, 0.25f, 0.25f, 0.25f}},
      second{
          .step = 2, .entropy = {0.25f, 0, 0, 0.25f, 0.25f, 0.25f}, .share = {1, 0, 0, 0, 0.25f, 0.25f, 0.25f, 0.25f}};
  const std::vector<LayerTree> layers = mean_trees({first, second}, {.tree_layers = 2, .leaves = 4});
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].share, (std::vector<double>{0.75, 0.125, 0.125, 0}));
  EXPECT_EQ(layers[0].entropy, (std::vector<double>{0.25, 0.25, 0}));
  EXPECT_EQ(layers[1].share, (std::vector<double>(4, 0.25)));
  EXPECT_EQ(layers[1].entropy, (std::vector<double>(3, 0.375)));
}

TEST(TreeTable, ShowsLeavesSharesAndNodesEntropies) {
  const LayerTree layer{.share = {0.25, 0.625, 0.125, 0}, .entropy = {0.69, 0.09, 0.12}};
  EXPECT_EQ(lines_of(tree_table({layer}, {"11"}, true))[2],
            "   11  ▄ 25 █ 62 ▂ 12 ·  0               2.50        0.90     0.300    0.690         66.7");
  EXPECT_EQ(lines_of(tree_table({layer}, {"11"}, false))[2],
            "   11  = 25 @ 62 : 12 x  0               2.50        0.90     0.300    0.690         66.7");
}

TEST(TreeTable, FitsA100ColumnsForAnyNumberOfLeaves) {
  for (const std::size_t leaves : {2u, 8u, 16u, 64u, 128u, 1024u, 65536u})
    for (const bool unicode : {false, true}) {
      LayerTree layer{.share = std::vector<double>(leaves, 0), .entropy = std::vector<double>(leaves - 1, 0.69)};
      layer.share[0] = 1;
      const auto lines = lines_of(tree_table({layer}, {"11"}, unicode));
      for (const std::string& line : lines) EXPECT_LE(columns_of(line), 100u) << line;
      EXPECT_EQ(columns_of(lines[1]), columns_of(lines[2])) << lines[1];
      EXPECT_LE(lines.size(), 9u);
    }
}

}  // namespace
}  // namespace switchyard
