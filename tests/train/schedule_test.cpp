#include "train/schedule.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "core/error.hpp"

namespace switchyard {
namespace {

TEST(Schedule, ConstantAfterALinearWarmUp) {
  const ScheduleOptions options{.kind = "constant", .learning_rate = 0.4, .warmup_steps = 4, .total_steps = 10};
  const double expected[] = {0.1, 0.2, 0.3, 0.4, 0.4, 0.4};
  for (Index step = 0; step < 6; ++step) EXPECT_DOUBLE_EQ(learning_rate(options, step), expected[step]) << step;
  EXPECT_EQ(learning_rate(options, 1000), 0.4);
}

TEST(Schedule, CosineGoesFromTheTopToZero) {
  const ScheduleOptions options{.kind = "cosine", .learning_rate = 0.4, .warmup_steps = 0, .total_steps = 8};
  EXPECT_DOUBLE_EQ(learning_rate(options, 0), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(options, 2), 0.2 * (1 + std::sqrt(0.5)));
  EXPECT_DOUBLE_EQ(learning_rate(options, 4), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(options, 6), 0.2 * (1 - std::sqrt(0.5)));
  EXPECT_NEAR(learning_rate(options, 8), 0, 1e-16);
  EXPECT_NEAR(learning_rate(options, 20), 0, 1e-16);  // it does not rise again
}

TEST(Schedule, CosineBeginsWhereTheWarmUpEnds) {
  const ScheduleOptions options{.kind = "cosine", .learning_rate = 0.4, .warmup_steps = 4, .total_steps = 12};
  EXPECT_DOUBLE_EQ(learning_rate(options, 0), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 3), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(options, 4), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(options, 8), 0.2);
}

TEST(Schedule, AWarmUpMayBeLongerThanTheRun) {
  const ScheduleOptions options{.kind = "cosine", .learning_rate = 0.4, .warmup_steps = 8, .total_steps = 4};
  EXPECT_DOUBLE_EQ(learning_rate(options, 3), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(options, 8), 0.4);
}

TEST(Schedule, UnknownNamesAreErrors) {
  const ScheduleOptions options{.kind = "linear", .learning_rate = 0.4, .warmup_steps = 0, .total_steps = 4};
  try {
    learning_rate(options, 0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("\"linear\" is not one of constant, cosine"), std::string::npos);
  }
}

}  // namespace
}  // namespace switchyard
