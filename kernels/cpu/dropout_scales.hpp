#pragma once

#include <array>
#include <cstdint>

#include "kernels/api/dropout.hpp"

namespace switchyard::kernels::cpu {

constexpr Index kWordsPerBlock = 4;    // of random numbers, 32 bits each
constexpr Index kColumnsPerBlock = 8;  // 16 bits each

// How many elements beyond the last one the functions below may write.
constexpr Index kDropoutSlack = 128;

// scales (num_rows, 8 num_blocks): 0 where an element is dropped, dropout.scale() where it is kept, for Philox rows
// first_row, first_row + 1, ... and Philox blocks first_block, first_block + 1, ...
void dropout_scales(const Dropout& dropout, std::uint32_t first_row, Index num_rows, std::uint32_t first_block,
                    Index num_blocks, float* scales);

// The same for 1 + jitter (2 u - 1), u = (bits + 0.5) / 65536.
void jitter_scales(const RandomKey& key, float jitter, std::uint32_t first_row, Index num_rows,
                   std::uint32_t first_block, Index num_blocks, float* scales);

// words (num_rows, num_blocks, 4): random_words(key, row, block) for rows first_row, ... and blocks 0, 1, ...
void many_random_words(const RandomKey& key, std::uint32_t first_row, Index num_rows, Index num_blocks,
                       std::uint32_t* words);

constexpr Index kDropoutChunk = 512;  // columns; keeps the scales in the first-level cache

inline constexpr auto kOnes = [] {
  std::array<float, kDropoutChunk> ones{};
  ones.fill(1.0f);
  return ones;
}();

// Calls body(first_col, end_col, scales) along array row `row`, scales[c - first_col] being that of column c.
template <typename Body>
void for_dropout_chunks(const Dropout& dropout, Index row, Index cols, const Body& body) {
  alignas(64) float scales[kDropoutChunk + kDropoutSlack];
  const bool draws = dropout.threshold() != 0;
  const std::uint32_t philox_row = dropout.row_ids ? static_cast<std::uint32_t>(dropout.row_ids[row])
                                                   : dropout.first_row + static_cast<std::uint32_t>(row);
  for (Index first_col = 0; first_col < cols; first_col += kDropoutChunk) {
    const Index end_col = first_col + kDropoutChunk < cols ? first_col + kDropoutChunk : cols;
    if (draws)
      dropout_scales(dropout, philox_row, 1, static_cast<std::uint32_t>(first_col / kColumnsPerBlock),
                     ceil_div(end_col - first_col, kColumnsPerBlock), scales);
    body(first_col, end_col, draws ? static_cast<const float*>(scales) : kOnes.data());
  }
}

}  // namespace switchyard::kernels::cpu
