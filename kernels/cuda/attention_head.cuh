// What attention's kernels share whatever they compute in.
#pragma once

#include <type_traits>

#include "kernels/api/attention.hpp"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// In bf16 on tensor cores: attention_mma.cu, attention_mma_backward.cu.
void attention_bf16(const Context& context, const Attention& args);
void attention_backward_bf16(const Context& context, const AttentionBackward& args);

constexpr Index kMaxHeadSize = 128;

// Which of eight neighbouring keys of a query are kept: bit i for key first_key + i, a multiple of 8.
struct KeptKeys {
  DropoutFactors dropout;
  std::uint32_t first_row;    // Philox row of the sample's first token
  std::uint32_t first_block;  // that of the head's first eight keys

  __device__ unsigned mask(int query, int first_key) const {
    const auto words = random_words(dropout.key, first_row + static_cast<std::uint32_t>(query),
                                    first_block + static_cast<std::uint32_t>(first_key) / 8);
    unsigned kept = 0;
    for (int i = 0; i < 8; ++i) kept |= (dropout.keeps(words, i) ? 1u : 0u) << i;
    return kept;
  }
};
__device__ inline KeptKeys kept_keys(const DropoutFactors& dropout, Index sample, int head, int tokens) {
  return {dropout, dropout.first_row + static_cast<std::uint32_t>(sample * tokens),
          static_cast<std::uint32_t>(head) * static_cast<std::uint32_t>((tokens + 7) / 8)};
}

// Calls body(std::integral_constant<int, kSize>) with the padded size of a head; host code.
template <typename Body>
void with_head_size(Index head_size, const Body& body) {
  if (head_size > kMaxHeadSize)
    fail_operation("attention: heads of size " + std::to_string(head_size) +
                   " are too large for a GPU, which takes sizes up to " + std::to_string(kMaxHeadSize) +
                   "; use more heads.");
  if (head_size > 64)
    body(std::integral_constant<int, 128>());
  else if (head_size > 32)
    body(std::integral_constant<int, 64>());
  else if (head_size > 16)
    body(std::integral_constant<int, 32>());
  else
    body(std::integral_constant<int, 16>());
}

}  // namespace switchyard::kernels::cuda
