// Sizes of parameters and of the whole table, up to those that no number holds.
#include "core/parameter_table.hpp"

#include <gtest/gtest.h>

#include "config/test_files.hpp"

namespace switchyard {
namespace {

using test::expect_error;

TEST(ParameterTable, SumsStoredAndActive) {
  ParameterTable table;
  table.add({"dense", {3, 5}, false, {}});
  table.add({"experts", {4, 2, 7}, true, {}});
  EXPECT_EQ(table.num_stored(), 15 + 56);
  EXPECT_EQ(table.num_active(1), 15 + 14);
  EXPECT_EQ(table.num_active(2), 15 + 28);
}

TEST(ParameterTable, RefusesAParameterWhoseSizeOverflows) {
  ParameterTable table;
  // Products of 2^64 and of 2^63, which wrap to 0 and to a negative number.
  for (const Index width : {Index{1} << 24, Index{1} << 23})
    expect_error(ExitCode::kUsage, {"blocks.0.experts.w1", "(1048576, 1048576, ", "beyond", "ffn.experts"}, [&] {
      table.add({"blocks.0.experts.w1", {1 << 20, 1 << 20, width}, true, {}});
    });
  EXPECT_EQ(table.num_stored(), 0);
}

TEST(ParameterTable, RefusesAModelThatGrowsTooLarge) {
  ParameterTable table;
  table.add({"first", {kMostParameters - 1}, false, {}});
  table.add({"second", {1}, false, {}});
  EXPECT_EQ(table.num_stored(), kMostParameters);
  expect_error(ExitCode::kUsage, {"third", "281474976710656 parameters"}, [&] {
    table.add({"third", {1}, false, {}});
  });
  EXPECT_EQ(table.size(), 2);
}

}  // namespace
}  // namespace switchyard
