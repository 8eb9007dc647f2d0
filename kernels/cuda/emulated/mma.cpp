// The tensor cores' instructions, from the lanes' registers as PTX lays them out.
#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

namespace emulated {

namespace {

constexpr unsigned kBf16Bits = 16;

float half_of(unsigned pair, unsigned which) {
  return __uint_as_float(which == 0 ? pair << kBf16Bits : pair >> kBf16Bits << kBf16Bits);
}

struct Registers {
  const unsigned *a, *b;
};

}  // namespace

void require_alignment(const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes == 0) return;
  std::fprintf(stderr, "emulated CUDA: %zu bytes at once from or to an address that is no multiple of that\n", bytes);
  std::abort();
}

void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const Registers mine{a, b};
  const auto all = pointers_of_warp(&mine);
  const unsigned lane = place.thread.x % 32;
  const auto registers = [&](unsigned of_lane) { return *static_cast<const Registers*>(all[of_lane]); };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
    double sum = double{c[i]};
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned of_a = registers(row % 8 * 4 + k % 8 / 2).a[k / 8 * 2 + row / 8];
      const unsigned of_b = registers(col * 4 + k % 8 / 2).b[k / 8];
      sum += double{half_of(of_a, k % 2)} * double{half_of(of_b, k % 2)};
    }
    c[i] = static_cast<float>(sum);
  }
  __syncwarp();  // the others have read a and b
}

void load_matrices(const void* row, bool transposed, unsigned (&pairs)[4]) {
  require_alignment(row, 16);
  const auto rows = pointers_of_warp(row);
  const unsigned lane = place.thread.x % 32, g = lane / 4, t = lane % 4;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const auto element = [&](unsigned r, unsigned col) -> unsigned {
      return static_cast<const std::uint16_t*>(rows[matrix * 8 + r])[col];
    };
    pairs[matrix] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << kBf16Bits
                               : element(g, 2 * t) | element(g, 2 * t + 1) << kBf16Bits;
  }
  __syncwarp();  // no lane writes what others are still to read
}

unsigned bf16x2(float low, float high) {
  const auto bits = [](float x) {
    const unsigned exact = __float_as_uint(x);
    return x != x ? 0x7fffu : (exact + 0x7fffu + ((exact >> kBf16Bits) & 1u)) >> kBf16Bits;
  };
  return bits(low) | bits(high) << kBf16Bits;
}

}  // namespace emulated
