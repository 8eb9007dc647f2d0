// Lists of products: on a GPU small ones run side by side, each with the bits that it has alone, and what comes before
// and after waits for them and is waited for.
#include <vector>

#include "kernel_test.hpp"
#include "kernels/api/elementwise.hpp"
#include "kernels/api/gemm.hpp"

namespace switchyard::kernels {
namespace {

struct Shape {
  Index m, n, k;
};
// More than there are places side by side; widths that operands are copied for; sums that are cut; one that fills a
// GPU.
constexpr Shape kShapes[] = {{40, 33, 30}, {7, 12, 3000}, {1, 5, 2},   {2048, 2048, 3}, {64, 64, 64},
                             {9, 31, 45},  {17, 3, 2100}, {33, 25, 6}, {50, 7, 0},      {20, 20, 20}};

Index size_of_c() {
  Index size = 0;
  for (const Shape& s : kShapes) size += s.m * s.n;
  return size;
}

// All products read the beginnings of a and b. Every third one adds to its C, every third one a bias.
std::vector<Gemm> products(const float* a, const float* b, float* c) {
  std::vector<Gemm> all;
  for (const auto& [m, n, k] : kShapes) {
    const std::size_t i = all.size();
    Gemm g{.m = m, .n = n, .k = k, .a = a, .lda = k, .b = b, .ldb = n, .c = c, .ldc = n};
    if (i % 3 == 0) {
      g.num_addends = 1;
      g.addends[0] = c;
    }
    if (i % 3 == 1) g.bias = a;
    all.push_back(g);
    c += m * n;
  }
  return all;
}

TEST(GemmList, OfSmallAndLargeProductsGivesWhatEachGivesAlone) {
  const Floats a = random_floats(40000, 1), b = random_floats(40000, 2), before = random_floats(size_of_c(), 3);
  on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output together(before), alone(before);
    gemm(context, products(a.data(), b.data(), together.data()));
    for (const Gemm& product : products(a.data(), b.data(), alone.data())) gemm(context, product);
    const Floats values = together.values();
    EXPECT_TRUE(same_bits(values, alone.values()));
    return {values};
  });
}

// A kernel makes the operands, a list multiplies them, the next list multiplies that, and a kernel changes the result.
TEST(GemmList, TakesItsTurnAmongOtherKernels) {
  constexpr Index kRows = 24, kCols = 20, kCount = 9, kSize = kRows * kCols;
  const Floats x = random_floats(kCount * kSize, 1), bias = random_floats(kCols, 2),
               w = random_floats(kCols * kCols, 3);
  const auto run = [&](const Context& context, bool together) {
    Output first(kCount * kSize), second(kCount * kSize), third(kCount * kSize);
    const auto add = [&](const float* from, float* to) {
      bias_add(context, {.rows = kCount * kRows, .cols = kCols, .x = from, .bias = bias.data(), .y = to});
    };
    const auto multiply = [&](const float* from, float* to) {
      std::vector<Gemm> list;
      for (Index i = 0; i < kCount; ++i)
        list.push_back(LinearProducts{kRows, kCols, kCols}.forward(from + i * kSize, w.data(), to + i * kSize));
      if (together) return gemm(context, list);
      for (const Gemm& product : list) gemm(context, product);
    };
    add(x.data(), first.data());
    multiply(first.data(), second.data());
    multiply(second.data(), third.data());
    add(third.data(), third.data());
    add(third.data(), first.data());
    return first.values();
  };
  const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    return {run(context, true), run(context, false)};
  });
  EXPECT_TRUE(same_bits(outputs[0], outputs[1]));
}

}  // namespace
}  // namespace switchyard::kernels
