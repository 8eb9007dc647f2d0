#include "kernels/api/reduce.hpp"

#include "core/error.hpp"
#include "kernel_test.hpp"
#include "kernels/api/memory.hpp"

namespace switchyard::kernels {
namespace {

constexpr Index kSizes[] = {0, 1, 17, 1023, 1025, 40000};

// The order of the additions is the point, so the bits must be those of the plain loop.
TEST(TreeCarryTest, AddsInTheDocumentedOrderAndMayWriteOverAnInput) {
  for (const Index size : kSizes)
    for (const int num_earlier : {0, 1, 2, 5}) {
      SCOPED_TRACE(testing::Message() << "size " << size << ", levels " << num_earlier);
      std::vector<Floats> levels;
      for (int level = 0; level < num_earlier; ++level)
        levels.push_back(random_floats(size, 10 + static_cast<std::uint32_t>(level)));
      const Floats last = random_floats(size, 1);
      Floats expected = last;
      for (const Floats& level : levels)
        for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = level[i] + expected[i];
      // out apart, over `last`, and over each level in turn
      for (int over = -2; over < num_earlier; ++over) {
        const Floats out = on_all_threads([&](const Context& context) -> std::vector<Floats> {
          Output output =
              over == -2 ? Output(size) : Output(over == -1 ? last : levels[static_cast<std::size_t>(over)]);
          TreeCarry args{.size = size,
                         .num_earlier = num_earlier,
                         .last = over == -1 ? output.data() : last.data(),
                         .out = output.data()};
          for (int level = 0; level < num_earlier; ++level)
            args.earlier[static_cast<std::size_t>(level)] =
                level == over ? output.data() : levels[static_cast<std::size_t>(level)].data();
          tree_carry(context, args);
          return {output.values()};
        })[0];
        EXPECT_TRUE(same_bits(out, expected)) << "out over " << over;
      }
    }
}

TEST(MeanTest, MatchesTheReference) {
  for (const Index size : kSizes)
    for (const Index count : {1, 2, 5}) {
      const Floats x = random_floats(count * size, 1);
      const Floats actual =
          on_all_threads([&, size = size, count = count](const Context& context) -> std::vector<Floats> {
            Output out(size);
            mean(context, {.count = count, .size = size, .x = x.data(), .mean = out.data()});
            return {out.values()};
          })[0];
      Doubles expected(static_cast<std::size_t>(size), 0.0);
      for (std::size_t i = 0; i < x.size(); ++i) expected[i % expected.size()] += x[i] / static_cast<double>(count);
      expect_near(actual, expected, 1e-6, "mean");
    }
}

TEST(CountNotFinite, CountsNanAndBothInfinities) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  Floats x = random_floats(100, 1);
  EXPECT_EQ(count_not_finite(context, x.data(), 100), 0);
  x[0] = kPoison;
  x[50] = std::numeric_limits<float>::infinity();
  x[99] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(count_not_finite(context, x.data(), 100), 3);
  EXPECT_EQ(count_not_finite(context, nullptr, 0), 0);
}

TEST(Memory, ArraysAreAlignedAndKeepWhatWasCopiedIn) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats values = random_floats(101, 1);
  Array<float> array(test_device(), 101), other(test_device(), 101);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data()) % 64, 0u);
  array.upload(context, values);
  copy(context, other.data(), array.data(), 101 * Index{sizeof(float)});
  Floats back(101, kPoison);
  copy_to_host(context, back.data(), other.data(), 101 * Index{sizeof(float)});
  EXPECT_EQ(back, values);
  other.clear(context);
  copy_to_host(context, back.data(), other.data(), 101 * Index{sizeof(float)});
  EXPECT_EQ(back, Floats(101, 0.0f));
  EXPECT_EQ(Array<float>(test_device(), 0).size(), 0);
}

TEST(Memory, SaysHowMuchItCouldNotGet) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer stops the program at such a request";
#endif
  try {
    Array<float> array(test_device(), Index{1} << 60);
    FAIL() << "there cannot be that much memory";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("4611686018427387904 bytes"), std::string::npos) << error.what();
  }
}

TEST(DeviceSwitch, RefusesCudaByName) {
  if (is_built_for(Device::kCuda)) GTEST_SKIP() << "this build has CUDA kernels";
  ThreadPool threads(1);
  try {
    mean({.device = Device::kCuda, .threads = &threads}, {});
    FAIL() << "this build has no CUDA kernels";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mean: this program was built without CUDA"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace switchyard::kernels
