// Random numbers as a function: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// key = the run's seed; counter = (block, row, step, purpose and layer). No state, so no order to keep.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include <Random123/philox.h>

#include "core/host_device.hpp"

namespace switchyard {

enum class Purpose : std::uint32_t {
  kInitialise = 1,
  kShuffle,
  kAugment,
  kRoute,
  kRouteEvaluation,
  kAttentionDropout,
  kAttentionResidualDropout,
  kFfnDropout,
  kFfnResidualDropout,
  kSynthetic,
  kGateJitter,
  kGateDropout,
  kGateNoise,
  kGatingDropout,
  kHash,
  kSharedFfnDropout,
  kSharedFfnResidualDropout,
  kUpcycle,
  kRegionLeak,
  kInputDropout,
};

// Everything but the row (a sample or token) and the block (four words within the row).
struct RandomKey {
  std::uint64_t seed = 0;
  Purpose purpose = Purpose::kInitialise;
  std::uint32_t layer = 0;  // below 2^24
  std::uint32_t step = 0;
  // Added to step where random words are made: what is launched again in another step finds that one there. In the
  // memory of whoever makes them; null: none.
  const std::uint32_t* step_in_memory = nullptr;
};

// The same words, without a look into memory for each four of them.
SWITCHYARD_HOST_DEVICE inline RandomKey with_step_read(RandomKey key) {
  if (key.step_in_memory) key.step += *key.step_in_memory;
  key.step_in_memory = nullptr;
  return key;
}

// Four independent words, uniform over [0, 2^32).
SWITCHYARD_HOST_DEVICE inline std::array<std::uint32_t, 4> random_words(const RandomKey& key, std::uint32_t row,
                                                                        std::uint32_t block) {
  const std::uint32_t step = key.step_in_memory ? key.step + *key.step_in_memory : key.step;
  const r123::Philox4x32::ctr_type counter = {
      {block, row, step, (static_cast<std::uint32_t>(key.purpose) << 24) | key.layer}};
  const r123::Philox4x32::key_type seed = {
      {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)}};
  const auto words = r123::Philox4x32()(counter, seed);
  return {words[0], words[1], words[2], words[3]};
}

// [0, 1) with 24 bits: exact in a float.
SWITCHYARD_HOST_DEVICE inline float to_unit_float(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1.0p-24f;
}

// Four standard normals of four words, two of each pair (Box & Muller, 1958): that at `place` of them.
inline double to_normal(const std::array<std::uint32_t, 4>& words, std::size_t place) {
  const std::size_t pair = place / 2 * 2;
  const double radius = std::sqrt(-2 * std::log(1 - double{to_unit_float(words[pair])}));  // 1 - u avoids log 0
  const double angle = 2 * std::numbers::pi * double{to_unit_float(words[pair + 1])};
  return radius * (place % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

// 0 .. bound-1 by multiply-shift; the bias is below bound / 2^32.
SWITCHYARD_HOST_DEVICE inline std::uint32_t to_below(std::uint32_t word, std::uint32_t bound) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(word) * bound) >> 32);
}

}  // namespace switchyard
