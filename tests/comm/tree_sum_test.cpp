// One rank's part of the reduction tree against the tree as it is defined.
#include "comm/tree_sum.hpp"

#include <gtest/gtest.h>

#include <optional>

#include "comm/reference_tree.hpp"
#include "support/ranks.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kSizes[] = {5, 1, 1100, 0, 3};  // of parts; 1100 is more than a kernel adds at once

// The leaf of a part; none: skipped.
using Leaves = std::vector<std::optional<Floats>>;

Leaves leaves_of_part(Index part, Index num_leaves, std::uint64_t seed = 0) {
  Leaves leaves;
  for (Index leaf = 0; leaf < num_leaves; ++leaf)
    leaves.push_back(
        order_sensitive_floats(kSizes[part], seed * 10000 + static_cast<std::uint64_t>(100 * part + leaf)));
  return leaves;
}

std::vector<Floats> with_zeros(const Leaves& leaves, Index size) {
  std::vector<Floats> filled;
  for (const auto& leaf : leaves) filled.push_back(leaf.value_or(Floats(static_cast<std::size_t>(size), 0.0f)));
  return filled;
}

class Tree {
 public:
  Tree(Index num_leaves, Index block, std::vector<Index> sizes) : sum_(Device::kCpu, num_leaves, block, sizes) {}

  void add(Index part, const std::optional<Floats>& leaf) {
    if (!leaf) return sum_.skip(cpu_, part);
    const kernels::ArenaScope scope(arena_);
    float* place = sum_.leaf(part, arena_);
    std::copy(leaf->begin(), leaf->end(), place);
    sum_.add(cpu_, part, place);
  }
  Floats finish() {
    const float* sums = sum_.finish(cpu_);
    return {sums, sums + sum_.size()};
  }

 private:
  Cpu cpu_;
  kernels::Arena arena_{Device::kCpu};
  TreeSum sum_;
};

TEST(TreeSum, GivesTheBitsOfItsDefinition) {
  for (Index num_leaves : {1, 2, 3, 4, 6, 8, 12}) {
    SCOPED_TRACE(std::to_string(num_leaves) + " leaves");
    const Index block = odd_factor(num_leaves);
    Tree tree(num_leaves, block, {std::begin(kSizes), std::end(kSizes)});
    // Parts receive their leaves at their own pace: all of one part, then all of the next.
    Floats expected;
    for (Index part = 0; part < 5; ++part) {
      const Leaves leaves = leaves_of_part(part, num_leaves);
      for (const auto& leaf : leaves) tree.add(part, leaf);
      const Floats sum = reference_tree(with_zeros(leaves, kSizes[part]), block);
      expected.insert(expected.end(), sum.begin(), sum.end());
    }
    EXPECT_EQ(bits_of(tree.finish()), bits_of(expected));
  }
}

TEST(TreeSum, OrderMattersForTheseValues) {
  const std::vector<Floats> leaves = with_zeros(leaves_of_part(2, 8), 1100);
  EXPECT_NE(bits_of(reference_tree(leaves)), bits_of(left_to_right(leaves, 0, 8)));
}

// An expert without tokens writes nothing; the sum is as if it had written zeros. Every subset of the leaves.
TEST(TreeSum, SkippedLeavesCountAsZeros) {
  for (Index num_leaves : {4, 6, 8}) {
    const Index block = odd_factor(num_leaves);
    Tree tree(num_leaves, block, {kSizes[0]});
    for (unsigned kept = 0; kept < 1u << num_leaves; ++kept) {
      Leaves leaves = leaves_of_part(0, num_leaves);
      for (Index leaf = 0; leaf < num_leaves; ++leaf)
        if (!(kept >> leaf & 1)) leaves[static_cast<std::size_t>(leaf)].reset();
      for (const auto& leaf : leaves) tree.add(0, leaf);
      EXPECT_EQ(bits_of(tree.finish()), bits_of(reference_tree(with_zeros(leaves, kSizes[0]), block)))
          << "leaves " << std::hex << kept << " of " << num_leaves;
    }
  }
}

TEST(TreeSum, PartsMayInterleave) {
  Tree tree(4, 1, {kSizes[0], kSizes[4]});
  const Leaves first = leaves_of_part(0, 4), second = leaves_of_part(4, 4);
  for (std::size_t leaf : {0u, 1u}) tree.add(0, first[leaf]);
  for (std::size_t leaf : {0u, 1u, 2u}) tree.add(1, second[leaf]);
  for (std::size_t leaf : {2u, 3u}) tree.add(0, first[leaf]);
  tree.add(1, second[3]);
  Floats expected = reference_tree(with_zeros(first, kSizes[0]));
  const Floats rest = reference_tree(with_zeros(second, kSizes[4]));
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(bits_of(tree.finish()), bits_of(expected));
}

TEST(TreeSum, TheNextRoundStartsFromNothing) {
  for (Index num_leaves : {1, 3, 8}) {
    const Index block = odd_factor(num_leaves);
    Tree tree(num_leaves, block, {kSizes[0]});
    for (std::uint64_t round : {1, 2, 3}) {
      const Leaves leaves = leaves_of_part(0, num_leaves, round);
      for (const auto& leaf : leaves) tree.add(0, leaf);
      EXPECT_EQ(bits_of(tree.finish()), bits_of(reference_tree(with_zeros(leaves, kSizes[0]), block)));
    }
    for (Index leaf = 0; leaf < num_leaves; ++leaf) tree.add(0, std::nullopt);
    EXPECT_EQ(tree.finish(), Floats(5, 0.0f));
  }
}

TEST(TreeSum, TooFewLeavesAreAnError) {
  Tree tree(4, 1, {2, 3});
  for (Index leaf = 0; leaf < 4; ++leaf) tree.add(0, Floats(2, 1.0f));
  for (Index leaf = 0; leaf < 3; ++leaf) tree.add(1, Floats(3, 1.0f));
  const std::string message = message_of([&] { tree.finish(); });
  EXPECT_TRUE(contains(message, "part 1 has 3 of its 4 leaves")) << message;
}

TEST(TreeSum, LeavesMustBeAPowerOfTwoOfBlocks) {
  for (const auto& [num_leaves, block] : {std::pair<Index, Index>{6, 1}, {5, 3}, {2, 3}, {0, 1}}) {
    const std::string message = message_of([&] { Tree(num_leaves, block, {1}); });
    EXPECT_TRUE(contains(message, "power of two of blocks")) << num_leaves << " leaves, block " << block << message;
  }
}

}  // namespace
}  // namespace switchyard::testing
