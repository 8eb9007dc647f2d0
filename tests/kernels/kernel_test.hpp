// How kernels are tested: float outputs, poisoned beforehand, against double-precision references written from the
// equations in kernels/api; the same bits on one, two and three threads; nothing written outside the outputs.
// With SWITCHYARD_TEST_DEVICE=cuda in the environment the same on a GPU, or on the emulated one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/context.hpp"
#include "core/random.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/dropout.hpp"
#include "kernels/api/memory.hpp"

namespace emulated {
enum class Order;
[[gnu::weak]] void set_order(Order order);  // null where the emulated GPU is not linked
}  // namespace emulated

namespace switchyard::kernels {

// Where there is no such device, the program ends with the code that means "skipped" to ctest.
inline Device test_device() {
  static const Device device = [] {
    const char* const name = std::getenv("SWITCHYARD_TEST_DEVICE");
    if (!name) return Device::kCpu;
    if (std::string(name) != "cuda") {
      std::fprintf(stderr, "SWITCHYARD_TEST_DEVICE = %s: there is only cuda\n", name);
      std::exit(2);
    }
    if (num_devices(Device::kCuda) > 0) return Device::kCuda;
    std::fprintf(stderr, "no GPU: skipped\n");
    std::exit(77);
  }();
  return device;
}

inline bool is_emulated() { return emulated::set_order != nullptr; }

inline Context test_context(ThreadPool& threads) { return {.device = test_device(), .threads = &threads}; }

// By size. A GPU's page-locked memory is slow to get, and a test takes thousands of arrays of few sizes.
inline std::map<Index, std::vector<void*>>& free_host_memory() {
  static auto& blocks = *new std::map<Index, std::vector<void*>>;  // outlives every array
  return blocks;
}

// Host memory that kernels on the test's device can read and write.
template <typename T>
struct TestAllocator {
  using value_type = T;
  TestAllocator() = default;
  template <typename U>
  TestAllocator(const TestAllocator<U>&) {}
  T* allocate(std::size_t count) {
    std::vector<void*>& free = free_host_memory()[bytes(count)];
    if (free.empty()) return static_cast<T*>(allocate_host(test_device(), bytes(count)));
    void* const block = free.back();
    free.pop_back();
    return static_cast<T*>(block);
  }
  void deallocate(T* pointer, std::size_t count) {
    if (test_device() == Device::kCpu) return release_host(test_device(), pointer);
    try {
      synchronize({.device = test_device()});  // what runs may still write there
    } catch (const std::exception&) {          // and whoever waits next hears of it
    }
    free_host_memory()[bytes(count)].push_back(pointer);
  }
  bool operator==(const TestAllocator&) const { return true; }

 private:
  // On the CPU exact, so that sanitizers see what is written beyond it.
  static Index bytes(std::size_t count) {
    constexpr Index kUnit = 4096;
    const auto size = static_cast<Index>(count * sizeof(T));
    return test_device() == Device::kCpu ? size : (size + kUnit - 1) / kUnit * kUnit;
  }
};
template <typename T>
using TestVector = std::vector<T, TestAllocator<T>>;

using Floats = TestVector<float>;
using Doubles = std::vector<double>;
using Ints = TestVector<std::int32_t>;

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

// Uniform over [-scale, scale), another array for another seed.
inline Floats random_floats(Index size, std::uint32_t seed, float scale = 1) {
  Floats values(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = scale * (2 * to_unit_float(random_words({.seed = seed}, 0, static_cast<std::uint32_t>(i))[0]) - 1);
  return values;
}

inline Doubles widen(const Floats& values) { return {values.begin(), values.end()}; }

// Nearest, ties to even, as IEEE rounding to eight bits of fraction.
inline double rounded_to_bf16(float x) {
  int exponent = 0;
  const double fraction = std::frexp(double{x}, &exponent);  // 0.5 <= |fraction| < 1
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// An output between two guards: begins as NaN or nonsense (or as given), and must end with the guards untouched.
template <typename T>
class Guarded {
 public:
  explicit Guarded(Index size) : Guarded(TestVector<T>(static_cast<std::size_t>(size), poison())) {}
  explicit Guarded(const TestVector<T>& initial) : size_(initial.size()), storage_(size_ + 2 * kGuard, kGuardValue) {
    std::copy(initial.begin(), initial.end(), storage_.begin() + kGuard);
  }
  T* data() { return storage_.data() + kGuard; }
  TestVector<T> values() const {
    synchronize({.device = test_device()});
    for (std::size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(storage_[i], kGuardValue) << kGuard - i << " elements before the output";
      EXPECT_EQ(storage_[kGuard + size_ + i], kGuardValue) << i << " elements after the output";
    }
    return {storage_.begin() + kGuard, storage_.end() - kGuard};
  }
  Floats floats() const {
    const TestVector<T> all = values();
    return {all.begin(), all.end()};
  }

 private:
  static constexpr std::size_t kGuard = 32;
  static constexpr T kGuardValue = static_cast<T>(12345.75);
  static constexpr T poison() { return std::numeric_limits<T>::has_quiet_NaN ? static_cast<T>(kPoison) : T{-77777}; }
  std::size_t size_;
  TestVector<T> storage_;
};
using Output = Guarded<float>;
using IntOutput = Guarded<std::int32_t>;

// Runs the kernel on 1, 2 and 3 threads (CUDA: three times; emulated, with three orders of its threads); returns the
// outputs after checking that they have the same bits.
inline std::vector<Floats> on_all_threads(const std::function<std::vector<Floats>(const Context&)>& run) {
  std::vector<Floats> first;
  for (int num_threads = 1; num_threads <= 3; ++num_threads) {
    ThreadPool threads(num_threads);
    if (is_emulated()) emulated::set_order(static_cast<emulated::Order>(num_threads - 1));
    std::vector<Floats> outputs = run(test_context(threads));
    if (num_threads == 1) {
      first = std::move(outputs);
      continue;
    }
    for (std::size_t i = 0; i < first.size(); ++i)
      EXPECT_TRUE(same_bits(first[i], outputs[i])) << "output " << i << " differs on " << num_threads << " threads";
  }
  return first;
}

// |actual - expected| <= tolerance * (1 + |expected|); NaN where and only where it is expected.
inline void expect_near(const Floats& actual, const Doubles& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(actual[i])) continue;
    if (std::isinf(expected[i]) && expected[i] == double{actual[i]}) continue;
    const double error = std::fabs(actual[i] - expected[i]);
    ASSERT_LE(error, tolerance * (1 + std::fabs(expected[i])))
        << what << "[" << i << "] is " << actual[i] << ", expected " << expected[i];
  }
}

// A sum in double precision, and how far from it the same sum in fp32 may be, in whatever order: rounding errors of
// random sign add up to sqrt(terms) u sum |term|, u = 2^-24 (Higham and Mary, "A new approach to probabilistic rounding
// error analysis", SIAM J. Sci. Comput. 41, 2019), to which come the roundings of each term itself.
struct Sum {
  double value = 0, magnitude = 0, inherited = 0;
  Index terms = 0;

  Sum& operator+=(double term) { return add(term, 0); }
  // A term that is itself a result of fp32, so far off at most.
  Sum& add(double term, double error) {
    value += term;
    magnitude += std::fabs(term);
    inherited += error;
    ++terms;
    return *this;
  }
  double bound(double roundings_of_a_term) const {
    return 0x1p-24 * (std::sqrt(static_cast<double>(terms)) + roundings_of_a_term) * magnitude + inherited;
  }
};
using Sums = std::vector<Sum>;

inline Sums begun_with(const Floats& values) {
  Sums sums(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
  return sums;
}

template <typename Values>
Sums column_sums(const Values& x, Index cols) {
  Sums sums(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < x.size(); ++i) sums[i % sums.size()] += x[i];
  return sums;
}

// One rounding of a term: that of a product. More where a term is a function's value.
inline void expect_sums(const Floats& actual, const Sums& expected, const std::string& what,
                        double roundings_of_a_term = 1) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const Sum& sum = expected[i];
    if (std::isnan(sum.value) && std::isnan(actual[i])) continue;
    ASSERT_TRUE(std::isfinite(sum.value)) << what << "[" << i << "]: no bound follows from its terms";
    ASSERT_LE(std::fabs(actual[i] - sum.value), sum.bound(roundings_of_a_term))
        << what << "[" << i << "] is " << actual[i] << ", expected " << sum.value << ", of " << sum.terms << " terms";
  }
}

// Compares every stride-th element of `actual` with central differences of sum(d_outputs * forward(x)) at x.
inline void expect_gradient(const std::function<Doubles(const Doubles&)>& forward, Doubles x, const Floats& d_outputs,
                            const Floats& actual, double tolerance, const std::string& what, std::size_t stride = 1) {
  constexpr double kStep = 1e-4;
  ASSERT_EQ(actual.size(), x.size()) << what;
  const auto loss = [&] {
    const Doubles outputs = forward(x);
    double sum = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i) sum += d_outputs[i] * outputs[i];
    return sum;
  };
  for (std::size_t i = 0; i < x.size(); i += stride) {
    const double at = x[i];
    x[i] = at + kStep;
    const double above = loss();
    x[i] = at - kStep;
    const double below = loss();
    x[i] = at;
    const double expected = (above - below) / (2 * kStep);
    ASSERT_LE(std::fabs(actual[i] - expected), tolerance * (1 + std::fabs(expected)))
        << what << "[" << i << "] is " << actual[i] << ", expected " << expected;
  }
}

// The factor by which dropout multiplies element (array row, column), from kernels/api/dropout.hpp word by word.
inline double reference_scale(const Dropout& dropout, Index row, Index column) {
  const std::uint32_t philox_row = dropout.row_ids ? static_cast<std::uint32_t>(dropout.row_ids[row])
                                                   : dropout.first_row + static_cast<std::uint32_t>(row);
  const auto words = random_words(dropout.key, philox_row, static_cast<std::uint32_t>(column / 8));
  const std::uint32_t word = words[static_cast<std::size_t>(column % 8 / 2)];
  const std::uint32_t bits = column % 2 == 0 ? word & 0xffff : word >> 16;
  return bits >= dropout.threshold() ? 65536.0 / (65536.0 - dropout.threshold()) : 0.0;
}

inline Dropout some_dropout(float probability) {
  return {.probability = probability,
          .key = {.seed = 0x123456789abcdef0, .purpose = Purpose::kFfnDropout, .layer = 5, .step = 77},
          .first_row = 4000000000u};
}

}  // namespace switchyard::kernels
