#include "kernels/api/gemm.hpp"

#include <sys/time.h>

#include <algorithm>
#include <cmath>
#include <csignal>

#include "kernel_test.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/api/version.hpp"

namespace switchyard::kernels {
namespace {

struct Case {
  Index m, n, k;
};
constexpr Case kCases[] = {{0, 3, 4},   {3, 0, 4},    {5, 7, 0},     {1, 1, 1},       {2, 3, 17},      {17, 25, 3},
                           {65, 65, 2}, {33, 10, 64}, {544, 64, 64}, {130, 300, 256}, {261, 170, 300}, {1, 1000, 300}};

// The whole of C as stored, with rows ldc apart; untouched between the rows. The first addend is C itself.
Sums reference(const Gemm& g, const Floats& a_floats, const Floats& b_floats, const Floats& initial_c,
               const Floats& second_addend) {
  const auto operand = [&](const Floats& floats) {
    Doubles values = widen(floats);
    if (g.precision == Precision::kBf16) std::transform(floats.begin(), floats.end(), values.begin(), rounded_to_bf16);
    return values;
  };
  const Doubles a = operand(a_floats), b = operand(b_floats);
  Sums c = begun_with(initial_c);
  for (Index i = 0; i < g.m; ++i)
    for (Index j = 0; j < g.n; ++j) {
      Sum sum;
      for (Index l = 0; l < g.k; ++l)
        sum += a[static_cast<std::size_t>(g.transpose_a ? l * g.lda + i : i * g.lda + l)] *
               b[static_cast<std::size_t>(g.transpose_b ? j * g.ldb + l : l * g.ldb + j)];
      const auto place = static_cast<std::size_t>(i * g.ldc + j);
      if (g.num_addends > 0) sum += initial_c[place];
      if (g.num_addends > 1) sum += double{second_addend[place]};
      c[place] = sum;
    }
  return c;
}

void expect_matches_reference(const Case& shape, bool transpose_a, bool transpose_b, int num_addends, Index gap,
                              Precision precision) {
  SCOPED_TRACE(testing::Message() << shape.m << " " << shape.n << " " << shape.k << ", transposed " << transpose_a
                                  << transpose_b << ", addends " << num_addends << ", gap " << gap
                                  << (precision == Precision::kBf16 ? ", bf16" : ""));
  Gemm g{.transpose_a = transpose_a,
         .transpose_b = transpose_b,
         .m = shape.m,
         .n = shape.n,
         .k = shape.k,
         .num_addends = num_addends,
         .precision = precision};
  g.lda = (transpose_a ? g.m : g.k) + gap;
  g.ldb = (transpose_b ? g.k : g.n) + gap;
  g.ldc = g.n + gap;
  const Floats a = random_floats((transpose_a ? g.k : g.m) * g.lda, 1);
  const Floats b = random_floats((transpose_b ? g.n : g.k) * g.ldb, 2);
  const Floats initial =
      num_addends == 0 ? Floats(static_cast<std::size_t>(g.m * g.ldc), kPoison) : random_floats(g.m * g.ldc, 3);
  const Floats second_addend = random_floats(g.m * g.ldc, 4);
  g.a = a.data();
  g.b = b.data();
  const Floats c = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output out(initial);
    Gemm with_output = g;
    with_output.c = out.data();
    with_output.addends = {out.data(), second_addend.data()};
    gemm(context, with_output);
    return {out.values()};
  })[0];
  // Tensor cores cut bits off where processors round: a term, aligned with the largest of its instruction, loses up to
  // two units in the last place, and so does the sum so far.
  const bool on_tensor_cores = test_device() == Device::kCuda && g.precision == Precision::kBf16;
  expect_sums(c, reference(g, a, b, initial, second_addend), "C", on_tensor_cores ? 4 : 1);
}

TEST(Gemm, MatchesTheReferenceInEveryOrientationAndPrecision) {
  for (const Case& shape : kCases)
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (const int num_addends : {0, 1, 2})
          for (const Index gap : {0, 3})
            for (const Precision precision : {Precision::kFp32, Precision::kBf16})
              expect_matches_reference(shape, transpose_a, transpose_b, num_addends, gap, precision);
}

// What lets threads, expert segments and ranks cut a product wherever they like.
TEST(Gemm, BitsOfARowDependNeitherOnOtherRowsNorOnColumns) {
  if (test_device() == Device::kCuda) GTEST_SKIP() << "on GPUs they depend on the product's shape";
  constexpr Index kM = 131, kN = 100, kK = 77;
  const Floats a = random_floats(kM * kK, 1), b = random_floats(kN * kK, 2);
  ThreadPool threads(1);
  const Context context = test_context(threads);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto product = [&](Index first_row, Index m, Index first_col, Index n) {
      Floats c(static_cast<std::size_t>(m * n));
      gemm(context, Gemm{.transpose_b = true,
                         .m = m,
                         .n = n,
                         .k = kK,
                         .a = a.data() + first_row * kK,
                         .lda = kK,
                         .b = b.data() + first_col * kK,
                         .ldb = kK,
                         .c = c.data(),
                         .ldc = n,
                         .precision = precision});
      synchronize(context);
      return c;
    };
    const Floats whole = product(0, kM, 0, kN);
    for (const Index first_row : {0, 1, 13, 120})
      for (const Index first_col : {0, 5, 33, 99}) {
        const Index m = std::min<Index>(11, kM - first_row), n = std::min<Index>(40, kN - first_col);
        const Floats part = product(first_row, m, first_col, n);
        Floats same_part;
        for (Index i = 0; i < m; ++i)
          for (Index j = 0; j < n; ++j)
            same_part.push_back(whole[static_cast<std::size_t>((first_row + i) * kN + first_col + j)]);
        EXPECT_TRUE(same_bits(part, same_part)) << first_row << " " << first_col;
      }
  }
}

TEST(Gemm, IndependentProductsRunTogetherGiveWhatTheyGiveAlone) {
  constexpr Index kRows[] = {130, 0, 1, 261, 70, 58};  // segments of experts
  constexpr Index kWidth = 30, kHidden = 100, kNumSegments = std::size(kRows);
  const Floats x = random_floats(520 * kWidth, 1), weights = random_floats(kNumSegments * kHidden * kWidth, 2);
  const auto run = [&](const Context& context, Precision precision, bool together) {
    Output out(650 * kHidden);
    std::vector<Gemm> products;
    Index first_row = 0;
    for (Index segment = 0; segment < kNumSegments; ++segment) {
      products.push_back({.transpose_b = true,
                          .m = kRows[segment],
                          .n = kHidden,
                          .k = kWidth,
                          .a = x.data() + first_row * kWidth,
                          .lda = kWidth,
                          .b = weights.data() + segment * kHidden * kWidth,
                          .ldb = kWidth,
                          .c = out.data() + first_row * kHidden,
                          .ldc = kHidden,
                          .precision = precision});
      first_row += kRows[segment];
    }
    products.push_back(products[0]);  // with a weight of its own
    products.back().b = products[1].b;
    products.back().c = out.data() + first_row * kHidden;
    if (together) gemm(context, products);
    if (!together)
      for (const Gemm& product : products) gemm(context, product);
    return out.values();
  };
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
      return {run(context, precision, true), run(context, precision, false)};
    });
    EXPECT_TRUE(same_bits(outputs[0], outputs[1]));
  }
}

// A GPU may cut an operand's fraction to 10 bits, which changes it by less than 2^-10 of itself; a CPU does not.
TEST(Gemm, InTf32IsAsNearAsOperandsOfTenBitsAre) {
  constexpr Index kM = 130, kN = 72, kK = 301;
  Gemm g{.transpose_b = true, .m = kM, .n = kN, .k = kK, .lda = kK, .ldb = kK, .ldc = kN};
  const Floats a = random_floats(kM * kK, 1), b = random_floats(kN * kK, 2);
  g.a = a.data();
  g.b = b.data();
  const auto run = [&](Precision precision) {
    return on_all_threads([&](const Context& context) -> std::vector<Floats> {
      Output out(kM * kN);
      Gemm with_output = g;
      with_output.precision = precision;
      with_output.c = out.data();
      gemm(context, with_output);
      return {out.values()};
    })[0];
  };
  const Floats found = run(Precision::kTf32);
  // A real one may find TF32 slower for this shape.
  if (test_device() == Device::kCpu || is_emulated()) {
    EXPECT_EQ(same_bits(found, run(Precision::kFp32)), test_device() == Device::kCpu);
  }
  for (Index i = 0; i < kM; ++i)
    for (Index j = 0; j < kN; ++j) {
      double sum = 0, size = 0;
      for (Index l = 0; l < kK; ++l) {
        const double product =
            double{a[static_cast<std::size_t>(i * kK + l)]} * b[static_cast<std::size_t>(j * kK + l)];
        sum += product;
        size += std::abs(product);
      }
      EXPECT_NEAR(found[static_cast<std::size_t>(i * kN + j)], sum, size * 0x1p-9 * 1.01) << i << " " << j;
    }
}

TEST(Gemm, PackedOnceGivesWhatPackingEachTimeGives) {
  constexpr Index kM = 37, kN = 45, kK = 131;
  const Floats a = random_floats(kM * kK, 1), b = random_floats(kN * kK, 2);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16})
    for (const bool transpose_b : {false, true}) {
      const Gemm product{.transpose_b = transpose_b,
                         .m = kM,
                         .n = kN,
                         .k = kK,
                         .a = a.data(),
                         .lda = kK,
                         .b = b.data(),
                         .ldb = transpose_b ? kK : kN,
                         .ldc = kN,
                         .precision = precision};
      const auto outputs = on_all_threads([&](const Context& context) -> std::vector<Floats> {
        Array<std::byte> packed(context.device, packed_b_bytes(context, product));
        pack_b(context, product, packed.data());
        Output whole(kM * kN), each_time(kM * kN), once(kM * kN);
        Gemm by_parts = product;
        by_parts.c = whole.data();
        gemm(context, by_parts);
        // Any number of rows.
        const auto run_parts = [&](Gemm part, float* c) {
          part.m = 5;
          part.c = c;
          gemm(context, part);
          part.m = kM - 5;
          part.a += 5 * kK;
          part.c += 5 * kN;
          gemm(context, part);
        };
        run_parts(product, each_time.data());
        by_parts.packed_b = packed.data();
        by_parts.b = nullptr;  // b itself is not read
        run_parts(by_parts, once.data());
        return {whole.values(), each_time.values(), once.values()};
      });
      EXPECT_TRUE(same_bits(outputs[1], outputs[2]));
      EXPECT_TRUE(test_device() == Device::kCuda || same_bits(outputs[0], outputs[2]));
    }
}

// What keeps a run's bits when arrays lie elsewhere in memory.
TEST(Gemm, BitsDoNotDependOnAlignment) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  constexpr Index kM = 37, kK = 300;
  for (const Index n : {44, 45}) {
    const Floats a = random_floats(kM * kK, 1), b = random_floats(n * kK, 2);
    Floats first;
    for (std::size_t offset = 0; offset < 16; ++offset) {
      Floats moved_a(a.size() + 16), moved_b(b.size() + 16), moved_c(static_cast<std::size_t>(kM * n + 16), 0.5f);
      std::copy(a.begin(), a.end(), moved_a.begin() + static_cast<std::ptrdiff_t>(offset));
      std::copy(b.begin(), b.end(), moved_b.begin() + static_cast<std::ptrdiff_t>(3 * offset % 16));
      float* c = moved_c.data() + 5 * offset % 16;
      gemm(context, Gemm{.transpose_b = true,
                         .m = kM,
                         .n = n,
                         .k = kK,
                         .a = moved_a.data() + offset,
                         .lda = kK,
                         .b = moved_b.data() + 3 * offset % 16,
                         .ldb = kK,
                         .c = c,
                         .ldc = n,
                         .num_addends = 1,
                         .addends = {c}});
      synchronize(context);
      const Floats values(c, c + kM * n);
      if (offset == 0) first = values;
      EXPECT_TRUE(same_bits(values, first)) << "offset " << offset;
    }
  }
}

// Small whole numbers, which every order of sums adds up exactly: nothing along a long k is left out or counted twice.
TEST(Gemm, LongSumsAreComplete) {
  constexpr Index kM = 5, kN = 12;
  for (const Index k : {2047, 2048, 2111, 3000, 33333})
    for (const bool transposed : {false, true})
      for (const int num_addends : {0, 1, 2})
        for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
          Floats a = random_floats(kM * k, 1, 3), b = random_floats(kN * k, 2, 3),
                 addend = random_floats(kM * kN, 3, 9);
          for (Floats* values : {&a, &b, &addend})
            for (float& value : *values) value = std::round(value);
          Gemm g{.transpose_a = transposed,
                 .transpose_b = !transposed,
                 .m = kM,
                 .n = kN,
                 .k = k,
                 .a = a.data(),
                 .lda = transposed ? kM : k,
                 .b = b.data(),
                 .ldb = transposed ? kN : k,
                 .ldc = kN,
                 .num_addends = num_addends,
                 .precision = precision};
          const Floats c = on_all_threads([&](const Context& context) -> std::vector<Floats> {
            Output out(addend);
            Gemm with_output = g;
            with_output.c = out.data();
            with_output.addends = {addend.data(), out.data()};
            gemm(context, with_output);
            return {out.values()};
          })[0];
          const Sums expected = reference(g, a, b, addend, addend);
          for (std::size_t i = 0; i < expected.size(); ++i)
            ASSERT_EQ(c[i], expected[i].value) << k << " " << transposed << " " << num_addends;
        }
}

TEST(Gemm, AlgorithmsAreChosenOnceForEachShape) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const Floats a = random_floats(6 * 8, 1), b = random_floats(8 * 4, 2);
  const auto algorithms_after = [&](Index m) {
    Output c(m * 4);
    gemm(context,
         Gemm{.m = m, .n = 4, .k = 8, .a = a.data(), .lda = 8, .b = b.data(), .ldb = 4, .c = c.data(), .ldc = 4});
    return product_algorithms(context.device);
  };
  const std::string first = algorithms_after(6);
  EXPECT_EQ(algorithms_after(6), first);
  EXPECT_EQ(first.empty(), context.device == Device::kCpu);
  const std::string libraries = device_libraries(context.device);
  EXPECT_EQ(libraries.empty(), context.device == Device::kCpu);
  EXPECT_EQ(libraries.find("emulated") != std::string::npos, is_emulated()) << libraries;
}

volatile std::sig_atomic_t num_signals = 0;

// A signal's frame lands below the stack pointer, so a product that moves that pointer into the heap (some
// just-in-time compilers do) loses data when a run is told to stop.
TEST(Gemm, SignalsDoNoHarm) {
  constexpr Index kSize = 256;
  const Floats a = random_floats(kSize * kSize, 1), b = random_floats(kSize * kSize, 2);
  ThreadPool threads(1);
  const Context context = test_context(threads);
  const auto product = [&] {
    Floats c(kSize * kSize);
    gemm(context, Gemm{.m = kSize,
                       .n = kSize,
                       .k = kSize,
                       .a = a.data(),
                       .lda = kSize,
                       .b = b.data(),
                       .ldb = kSize,
                       .c = c.data(),
                       .ldc = kSize});
    synchronize(context);
    return c;
  };
  const Floats expected = product();
  struct sigaction count {};
  count.sa_handler = [](int) { num_signals = num_signals + 1; };
  struct sigaction before {};
  sigaction(SIGALRM, &count, &before);
  const itimerval every_millisecond{{0, 1000}, {0, 1000}}, never{};
  setitimer(ITIMER_REAL, &every_millisecond, nullptr);
  bool same = true;
  while (num_signals < 100) same = same && same_bits(product(), expected);
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_TRUE(same);
}

}  // namespace
}  // namespace switchyard::kernels
