#include <algorithm>

#include "kernels/api/augmentation.hpp"
#include "kernels/cpu/column_sums.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

namespace {

using PixelValues = std::array<std::array<float, 256>, kMaxChannels>;  // normalised, by channel

// pixel(y, x, channel): a value of the image as it is to be cut.
template <typename Pixel>
void cut_into_patches(const Patchify& args, const PixelValues& values, const Pixel& pixel, float* out) {
  const Index patch = args.patch;
  const int channels = static_cast<int>(args.channels);
  for (Index patch_y = 0; patch_y < args.height; patch_y += patch)
    for (Index patch_x = 0; patch_x < args.width; patch_x += patch)
      for (int channel = 0; channel < channels; ++channel)
        for (Index y = patch_y; y < patch_y + patch; ++y)
          for (Index x = patch_x; x < patch_x + patch; ++x) *out++ = values[channel][pixel(y, x, channel)];
}

// A sample of pixels as they lie: patches of one pixel are in the image's own order.
void normalise_sample(const Patchify& args, const PixelValues& values, const std::uint8_t* image, float* out) {
  const Index pixels = args.height * args.width;
  for (Index channel = 0; channel < args.channels; ++channel)
    for (Index i = channel; i < pixels * args.channels; i += args.channels) out[i] = values[channel][image[i]];
}

void patchify_sample(const Patchify& args, const PixelValues& values, Index sample) {
  const Index first = sample * args.height * args.width * args.channels;
  const std::uint8_t* image = args.images + first;
  float* out = args.patches + first;
  const Augmentation drawn = draw_augmentation(args, sample);
  const auto turned = [&](Index y, Index x, int channel) {
    return augmented_pixel<true>(args, drawn, image, y, x, channel);
  };
  const auto moved = [&](Index y, Index x, int channel) {
    return augmented_pixel<false>(args, drawn, image, y, x, channel);
  };
  const auto as_it_lies = [&](Index y, Index x, int channel) {
    return image[(y * args.width + x) * args.channels + channel];
  };
  if (drawn.turns)
    cut_into_patches(args, values, turned, out);
  else if (drawn.moves())
    cut_into_patches(args, values, moved, out);
  else if (args.patch == 1)
    normalise_sample(args, values, image, out);
  else
    cut_into_patches(args, values, as_it_lies, out);
}

std::int32_t word_of_patch(const PatchWords& args, const float* values) {
  const Index patch = args.patch, half = ceil_div(patch, 2);
  Index sum = 0;
  std::array<Index, 4> quadrants{};
  for (Index channel = 0; channel < args.channels; ++channel)
    for (Index y = 0; y < patch; ++y)
      for (Index x = 0; x < patch; ++x) {
        const float pixel = (*values++ * args.deviation[channel] + args.mean[channel]) * 255.0f;
        const auto v = static_cast<Index>(std::min(255.0f, std::max(0.0f, pixel)) + 0.5f);
        const bool upper = y < half, lower = y >= patch - half, left = x < half, right = x >= patch - half;
        sum += v;
        if (upper && left) quadrants[0] += v;
        if (upper && right) quadrants[1] += v;
        if (lower && left) quadrants[2] += v;
        if (lower && right) quadrants[3] += v;
      }
  const Index pixels = patch * patch, quadrant_pixels = half * half;
  Index word = 16 * std::min<Index>(3, 4 * sum / (255 * args.channels * pixels));
  for (std::size_t i = 0; i < quadrants.size(); ++i)
    if (quadrants[i] * pixels > sum * quadrant_pixels) word += Index{1} << i;
  return static_cast<std::int32_t>(word);
}

}  // namespace

void patchify(const Context& context, const Patchify& args) {
  PixelValues values{};
  for (Index channel = 0; channel < args.channels; ++channel)
    for (int v = 0; v < 256; ++v)
      values[channel][v] = (static_cast<float>(v) / 255.0f - args.mean[channel]) / args.deviation[channel];
  context.threads->parallel_for(args.samples, [&](Index sample) { patchify_sample(args, values, sample); });
}

void patch_words(const Context& context, const PatchWords& args) {
  const Index patches = args.patches_per_sample, size = args.channels * args.patch * args.patch;
  context.threads->parallel_for(args.samples, [&](Index sample) {
    std::int32_t* words = args.words + sample * (1 + patches);
    words[0] = kClsWord;
    for (Index p = 0; p < patches; ++p)
      words[1 + p] = word_of_patch(args, args.patches + (sample * patches + p) * size);
  });
}

void embed_tokens(const Context& context, const EmbedTokens& args) {
  const Index width = args.width, tokens = args.patches + 1;
  context.threads->parallel_for(args.samples, [&](Index sample) {
    float* y = args.y + sample * tokens * width;
    for (Index c = 0; c < width; ++c) y[c] = args.cls[c];
    for (Index p = 0; p < args.patches; ++p) {
      const float* projected = args.projected + (sample * args.patches + p) * width;
      const float* position = args.positions + p * width;
      float* out = y + (1 + p) * width;
#pragma omp simd
      for (Index c = 0; c < width; ++c) out[c] = projected[c] + args.bias[c] + position[c];
    }
  });
}

void embed_tokens_backward(const Context& context, const EmbedTokensBackward& args) {
  const Index width = args.width, tokens = args.patches + 1;
  context.threads->parallel_for(tokens, [&](Index token) {
    const bool is_cls = token == 0;
    float* sums = is_cls ? args.d_cls : args.d_positions + (token - 1) * width;
    for (Index c = 0; c < width; ++c) sums[c] = 0;
    for (Index sample = 0; sample < args.samples; ++sample) {
      const float* d_y = args.d_y + (sample * tokens + token) * width;
      if (!is_cls)
        copy(args.d_projected + (sample * args.patches + token - 1) * width, d_y, width * Index{sizeof(float)});
#pragma omp simd
      for (Index c = 0; c < width; ++c) sums[c] += d_y[c];
    }
  });
  add_partial_sums(args.patches, width, args.d_positions, width, args.d_bias);
}

}  // namespace switchyard::kernels::cpu
