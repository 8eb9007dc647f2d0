#include "kernels/cpu/dropout_scales.hpp"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstring>

#include "core/types.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Two groups of eight blocks: ten rounds of one are a chain of instructions that wait for each other.
constexpr int kGroups = 2;
constexpr Index kBlocksInGroup = 8, kBlocksAtOnce = kGroups * kBlocksInGroup;
static_assert(kDropoutSlack >= (kBlocksAtOnce - 1) * kColumnsPerBlock);

// One word of each of eight Philox blocks, in the low halves of 64-bit lanes; the high halves hold anything.
typedef std::uint64_t Words __attribute__((vector_size(64)));
constexpr std::uint64_t kLowHalf = 0xffffffff;

// (low half of each lane) * factor
inline Words multiply(Words words, std::uint32_t factor) {
#ifdef __AVX512F__
  return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)words, _mm512_set1_epi64(factor));
#else
  return (words & kLowHalf) * std::uint64_t{factor};
#endif
}

// Ten rounds of Philox4x32 (Salmon et al., SC 2011): the bits of random_words(). groups[g][w]: word w of group g.
inline void philox(Words (&groups)[kGroups][4], std::uint64_t seed) {
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 2
    for (Words(&c)[4] : groups) {
      const Words product0 = multiply(c[0], 0xD2511F53), product1 = multiply(c[2], 0xCD9E8D57);
      c[0] = (product1 >> 32) ^ c[1] ^ std::uint64_t{key0};
      c[1] = product1;
      c[2] = (product0 >> 32) ^ c[3] ^ std::uint64_t{key1};
      c[3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// The 32 words of eight blocks, block after block.
struct WordsInOrder {
  Words halves[2];
};
inline WordsInOrder in_order(const Words (&c)[4]) {
  const Words first = (c[0] & kLowHalf) | (c[1] << 32), second = (c[2] & kLowHalf) | (c[3] << 32);
  return {{__builtin_shuffle(first, second, Words{0, 8, 1, 9, 2, 10, 3, 11}),
           __builtin_shuffle(first, second, Words{4, 12, 5, 13, 6, 14, 7, 15})}};
}

typedef std::uint32_t Bits __attribute__((vector_size(64)));
typedef float Scales __attribute__((vector_size(64)));

// 64 scales from the words of eight blocks: to_scale of 16 bits each, low half of a word first.
template <typename ToScale>
inline void write_scales(const Words (&c)[4], const ToScale& to_scale, float* scales) {
  typedef std::uint16_t Shorts __attribute__((vector_size(32)));
  const WordsInOrder words = in_order(c);
  Shorts shorts[4];
  static_assert(sizeof shorts == sizeof words);
  std::memcpy(shorts, &words, sizeof shorts);
  for (int i = 0; i < 4; ++i) {
    const Scales values = to_scale(__builtin_convertvector(shorts[i], Bits));
    std::memcpy(scales + 16 * i, &values, sizeof values);
  }
}

// write(words, done) for eight blocks after eight: words[w] is word w of those, `done` the number of blocks before
// them.
template <typename Write>
inline void for_philox_blocks(const RandomKey& key, std::uint32_t first_row, Index num_rows, std::uint32_t first_block,
                              Index num_blocks, const Write& write) {
  const std::uint64_t layer = (static_cast<std::uint32_t>(key.purpose) << 24) | key.layer;
  const std::uint32_t step = with_step_read(key).step;
  // Lane l of group n does block number 8 n + l of all, row after row: `row` and `block` step accordingly.
  const auto blocks_in_row = static_cast<std::uint64_t>(num_blocks);
  const std::uint64_t row_step = kBlocksInGroup / blocks_in_row, block_step = kBlocksInGroup % blocks_in_row;
  const Words lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  Words row = lanes / blocks_in_row, block = lanes % blocks_in_row;
  for (Index done = 0; done < num_rows * num_blocks; done += kBlocksAtOnce) {
    Words groups[kGroups][4];
#pragma GCC unroll 2
    for (Words(&c)[4] : groups) {
      c[0] = block + std::uint64_t{first_block};
      c[1] = row + std::uint64_t{first_row};
      c[2] = Words{} + std::uint64_t{step};
      c[3] = Words{} + layer;
      block += block_step;
      row += row_step;
      const Words carry = (Words)(block >= blocks_in_row);  // all ones where the row ends
      block -= carry & blocks_in_row;
      row -= carry;
    }
    philox(groups, key.seed);
#pragma GCC unroll 2
    for (int group = 0; group < kGroups; ++group) write(groups[group], done + group * kBlocksInGroup);
  }
}

}  // namespace

void dropout_scales(const Dropout& dropout, std::uint32_t first_row, Index num_rows, std::uint32_t first_block,
                    Index num_blocks, float* scales) {
  const std::uint32_t threshold = dropout.threshold();
  const float scale = dropout.scale();
  const auto to_scale = [=](const Bits& bits) -> Scales { return bits >= threshold ? Scales{} + scale : Scales{}; };
  for_philox_blocks(dropout.key, first_row, num_rows, first_block, num_blocks, [&](const Words(&words)[4], Index done) {
    write_scales(words, to_scale, scales + done * kColumnsPerBlock);
  });
}

void jitter_scales(const RandomKey& key, float jitter, std::uint32_t first_row, Index num_rows,
                   std::uint32_t first_block, Index num_blocks, float* scales) {
  // 2 u - 1 = bits / 32768 - 65535 / 65536, exactly
  const auto to_scale = [=](const Bits& bits) -> Scales {
    return 1.0f + jitter * (__builtin_convertvector(bits, Scales) * 0x1p-15f - 65535 * 0x1p-16f);
  };
  for_philox_blocks(key, first_row, num_rows, first_block, num_blocks, [&](const Words(&words)[4], Index done) {
    write_scales(words, to_scale, scales + done * kColumnsPerBlock);
  });
}

void many_random_words(const RandomKey& key, std::uint32_t first_row, Index num_rows, Index num_blocks,
                       std::uint32_t* words) {
  for_philox_blocks(key, first_row, num_rows, 0, num_blocks, [&](const Words(&columns)[4], Index done) {
    const WordsInOrder ordered = in_order(columns);
    std::memcpy(words + done * kWordsPerBlock, &ordered, sizeof ordered);
  });
}

}  // namespace switchyard::kernels::cpu
