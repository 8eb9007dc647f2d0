#include "app/multiply_adds.hpp"

namespace switchyard {

namespace {

#ifdef __AVX512F__
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
// More than a core has in flight: a latency of 4 or 5 cycles, two a cycle.
constexpr int kChains = 12;
constexpr int kRounds = 20000;

typedef float Lanes __attribute__((vector_size(sizeof(float) * kLanes)));

volatile float factor = 0.5f, term = 0.25f, seen = 0;

}  // namespace

void run_multiply_adds() {
  const Lanes a = Lanes{} + factor, b = Lanes{} + term;
  Lanes chains[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chains[i] = a + static_cast<float>(i);
  for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chains[i] = chains[i] * a + b;
  }
  Lanes sum{};
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum += chains[i];
  seen = sum[0];
}

double multiply_adds_flop() { return 2.0 * kLanes * kChains * kRounds; }

}  // namespace switchyard
