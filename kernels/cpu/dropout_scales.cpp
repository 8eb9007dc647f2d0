#include "kernels/cpu/dropout_scales.hpp"

#include <cstring>

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr int kLanes = 16;  // Philox blocks drawn side by side

// Ten rounds of Philox4x32 (Salmon et al., SC 2011) over counters c[word][lane]: the bits of random_words().
void philox(std::uint32_t (&c)[4][kLanes], std::uint64_t seed) {
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::uint64_t product0 = 0xD2511F53ull * c[0][lane];
      const std::uint64_t product1 = 0xCD9E8D57ull * c[2][lane];
      c[0][lane] = static_cast<std::uint32_t>(product1 >> 32) ^ c[1][lane] ^ key0;
      c[1][lane] = static_cast<std::uint32_t>(product1);
      c[2][lane] = static_cast<std::uint32_t>(product0 >> 32) ^ c[3][lane] ^ key1;
      c[3][lane] = static_cast<std::uint32_t>(product0);
    }
  }
}

}  // namespace

void dropout_scales(const Dropout& dropout, std::uint32_t first_row, Index num_rows, std::uint32_t first_block,
                    Index num_blocks, float* scales) {
  const auto threshold = static_cast<std::uint16_t>(dropout.threshold());
  const float scale = dropout.scale();
  std::uint32_t row = first_row;
  Index block = 0;
  for (Index done = 0; done < num_rows * num_blocks; done += kLanes) {
    std::uint32_t words[4][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      words[0][lane] = first_block + static_cast<std::uint32_t>(block);
      words[1][lane] = row;
      words[2][lane] = dropout.key.step;
      words[3][lane] = (static_cast<std::uint32_t>(dropout.key.purpose) << 24) | dropout.key.layer;
      if (++block == num_blocks) {
        block = 0;
        ++row;
      }
    }
    philox(words, dropout.key.seed);
    for (int lane = 0; lane < kLanes; ++lane)
      for (int word = 0; word < 4; ++word) {
        float* out = scales + (done + lane) * kColumnsPerBlock + 2 * word;
        out[0] = static_cast<std::uint16_t>(words[word][lane]) >= threshold ? scale : 0.0f;
        out[1] = static_cast<std::uint16_t>(words[word][lane] >> 16) >= threshold ? scale : 0.0f;
      }
  }
}

}  // namespace switchyard::kernels::cpu
