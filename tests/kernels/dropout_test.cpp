#include <algorithm>
#include <numeric>

#include "kernel_test.hpp"
#include "kernels/api/elementwise.hpp"

namespace switchyard::kernels {
namespace {

// Dropout as the kernels apply it, seen by giving it ones.
Floats scales(const Context& context, Index rows, Index cols, const Dropout& dropout) {
  const Floats ones(static_cast<std::size_t>(rows * cols), 1.0f);
  Output d_x(rows * cols), d_bias(cols);
  dropout_backward(
      context,
      {.rows = rows, .cols = cols, .d_y = ones.data(), .d_x = d_x.data(), .d_bias = d_bias.data(), .dropout = dropout});
  return d_x.values();
}

TEST(Dropout, IsTheDocumentedFunctionOfRowAndColumn) {
  Ints row_ids(40);
  std::iota(row_ids.rbegin(), row_ids.rend(), 1000);
  for (const float probability : {0.0f, 1e-6f, 0.1f, 0.5f, 0.9f, 0.9999f})
    for (const bool with_ids : {false, true})
      for (const Index cols : {1, 2, 7, 8, 9, 17, 63, 64, 65, 129, 300, 511, 512, 513, 1100}) {
        SCOPED_TRACE(testing::Message() << "probability " << probability << ", columns " << cols << ", ids "
                                        << with_ids);
        constexpr Index kRows = 3;
        Dropout dropout = some_dropout(probability);
        if (with_ids) dropout.row_ids = row_ids.data() + 11;
        const Floats actual = on_all_threads(
            [&](const Context& context) -> std::vector<Floats> { return {scales(context, kRows, cols, dropout)}; })[0];
        for (Index row = 0; row < kRows; ++row)
          for (Index c = 0; c < cols; ++c)
            ASSERT_EQ(actual[static_cast<std::size_t>(row * cols + c)],
                      static_cast<float>(reference_scale(dropout, row, c)))
                << "row " << row << ", column " << c;
      }
}

TEST(Dropout, EveryPartOfTheKeyMatters) {
  ThreadPool threads(1);
  const Dropout base = some_dropout(0.5f);
  std::vector<Dropout> others(6, base);
  others[0].key.seed ^= 1;
  others[1].key.seed ^= std::uint64_t{1} << 63;
  others[2].key.purpose = Purpose::kFfnResidualDropout;
  others[3].key.layer += 1;
  others[4].key.step += 1;
  others[5].first_row += 1;
  const Floats of_base = scales(test_context(threads), 1, 256, base);
  for (const Dropout& other : others) EXPECT_NE(scales(test_context(threads), 1, 256, other), of_base);
}

TEST(Dropout, TakesItsStepFromMemoryToo) {
  ThreadPool threads(1);
  const Dropout base = some_dropout(0.5f);
  const TestVector<std::uint32_t> step(1, base.key.step - 7);
  Dropout other = base;
  other.key.step = 7;
  other.key.step_in_memory = step.data();
  EXPECT_TRUE(same_bits(scales(test_context(threads), 3, 256, other), scales(test_context(threads), 3, 256, base)));
}

TEST(Dropout, DropsTheRightFraction) {
  ThreadPool threads(1);
  constexpr Index kRows = 1000, kCols = 1000;
  for (const float probability : {0.1f, 0.5f}) {
    const Floats kept = scales(test_context(threads), kRows, kCols, some_dropout(probability));
    const double dropped = static_cast<double>(std::count(kept.begin(), kept.end(), 0.0f)) / (kRows * kCols);
    EXPECT_NEAR(dropped, probability, 4 * std::sqrt(0.25 / (kRows * kCols)));  // four standard deviations
  }
}

}  // namespace
}  // namespace switchyard::kernels
