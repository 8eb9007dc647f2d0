// From images to tokens (Dosovitskiy et al., 2010.11929).
#pragma once

#include <array>
#include <cstdint>

#include "core/context.hpp"
#include "core/random.hpp"
#include "core/types.hpp"

namespace switchyard::kernels {

constexpr int kMaxChannels = 4;

// Random rotation and scaling, crop and flips, normalisation, and cutting into patches, in one pass.
// Pixel value v becomes (v / 255 - mean[c]) / deviation[c]; pixels from outside the image count as v = 0.
// Draws: words of (key, row = first_row + sample). Block 0: word 0 -> dy, word 1 -> dx, each to_below(2 crop_padding +
// 1) minus crop_padding; word 2 -> mirror left to right where its top bit is set, word 3 -> top to bottom likewise.
// Block 1, u = to_unit_float(word): word 0 -> angle = rotation (2 u - 1) counter-clockwise, word 1 -> factor = 1 +
// scaling (2 u - 1). The image is turned and enlarged by these about its centre, interpolated bilinearly and rounded to
// whole v (cosine and sine by factor are rounded to 2^-16). The crop's pixel (y, x) is that one's (y + dy, x + dx),
// mirrored afterwards.
struct Patchify {
  Index samples = 0, height = 0, width = 0, channels = 0, patch = 0;  // patch divides height and width
  const std::uint8_t* images = nullptr;                               // (samples, height, width, channels)
  float* patches =
      nullptr;  // (samples, height / patch, width / patch, channels, patch, patch): a Conv2d's weight order
  std::array<float, kMaxChannels> mean{}, deviation{};
  int crop_padding = 0;  // 0: no crop
  bool flip = false, flip_vertical = false;
  double rotation = 0;  // degrees, 0 to 180
  double scaling = 0;   // in [0, 1)
  RandomKey key{};
  std::uint32_t first_row = 0;
};
void patchify(const Context& context, const Patchify& args);

// A word for each token, from what its patch looks like: with v = 255 (patches * deviation + mean), rounded, its pixel
// values, m their mean over patch and channels, and q[i] their mean over quadrant i (upper left, upper right, lower
// left, lower right; a middle row or column belongs to both sides),
//   word = 16 min(3, floor(4 m / 255)) + sum over i of 2^i where q[i] > m,   in integers, so without rounding;
// CLS has the word kClsWord.
constexpr std::int32_t kClsWord = 64;
constexpr Index kNumWords = 65;
struct PatchWords {
  Index samples = 0, patches_per_sample = 0, channels = 0, patch = 0;
  const float* patches = nullptr;  // as Patchify writes them
  std::array<float, kMaxChannels> mean{}, deviation{};
  std::int32_t* words = nullptr;  // (samples, 1 + patches_per_sample)
};
void patch_words(const Context& context, const PatchWords& args);

// y[s, 0] = cls; y[s, 1 + p] = projected[s, p] + bias + positions[p]
struct EmbedTokens {
  Index samples = 0, patches = 0, width = 0;
  const float* projected = nullptr;  // (samples, patches, width)
  const float* bias = nullptr;       // (width)
  const float* positions = nullptr;  // (at least patches, width)
  const float* cls = nullptr;        // (width)
  float* y = nullptr;                // (samples, patches + 1, width)
};
void embed_tokens(const Context& context, const EmbedTokens& args);

struct EmbedTokensBackward {
  Index samples = 0, patches = 0, width = 0;
  const float* d_y = nullptr;    // (samples, patches + 1, width)
  float* d_projected = nullptr;  // (samples, patches, width)
  float* d_bias = nullptr;       // (width), overwritten, as are the next two
  float* d_positions = nullptr;  // (patches, width)
  float* d_cls = nullptr;        // (width)
};
void embed_tokens_backward(const Context& context, const EmbedTokensBackward& args);

}  // namespace switchyard::kernels
