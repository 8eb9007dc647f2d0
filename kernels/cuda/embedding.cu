#include "kernels/api/augmentation.hpp"
#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// A block has a sample.
__global__ void patchify_kernel(Patchify args) {
  const Index sample = blockIdx.x;
  const int height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const int channels = static_cast<int>(args.channels), patch = static_cast<int>(args.patch);
  const int patches_across = width / patch, size = height * width * channels;
  const std::uint8_t* const image = args.images + sample * size;
  float* const out = args.patches + sample * size;
  const Augmentation drawn = draw_augmentation(args, sample);
  for (int i = static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x)) {
    // i = (((patch_y patches_across + patch_x) channels + channel) patch + y_in_patch) patch + x_in_patch
    const int row = i / patch, in_channels = row / patch, patch_idx = in_channels / channels;
    const int channel = in_channels % channels;
    const int y = patch_idx / patches_across * patch + row % patch;
    const int x = patch_idx % patches_across * patch + i % patch;
    const auto v = static_cast<float>(drawn.turns ? augmented_pixel<true>(args, drawn, image, y, x, channel)
                                                  : augmented_pixel<false>(args, drawn, image, y, x, channel));
    const auto of = static_cast<std::size_t>(channel);
    out[i] = (v / 255.0f - args.mean[of]) / args.deviation[of];
  }
}

// A warp has a token; its sums are of integers.
__global__ void patch_words_kernel(PatchWords args) {
  const Index token = global_thread() / kWarpSize, tokens = args.patches_per_sample + 1;
  if (token >= args.samples * tokens) return;
  if (token % tokens == 0) {
    if (lane() == 0) args.words[token] = kClsWord;
    return;
  }
  const int patch = static_cast<int>(args.patch), half = (patch + 1) / 2, pixels = patch * patch;
  const int channels = static_cast<int>(args.channels), size = channels * pixels;
  const float* const values = args.patches + (token - token / tokens - 1) * size;
  int sum = 0, quadrants[4] = {};
  for (int i = lane(); i < size; i += kWarpSize) {
    const auto channel = static_cast<std::size_t>(i / pixels);
    const int y = i % pixels / patch, x = i % patch;
    const float pixel = fmaf(values[i], args.deviation[channel], args.mean[channel]) * 255.0f;
    const int v = static_cast<int>(fminf(255.0f, fmaxf(0.0f, pixel)) + 0.5f);
    const bool upper = y < half, lower = y >= patch - half, left = x < half, right = x >= patch - half;
    sum += v;
    if (upper && left) quadrants[0] += v;
    if (upper && right) quadrants[1] += v;
    if (lower && left) quadrants[2] += v;
    if (lower && right) quadrants[3] += v;
  }
  const Index total = warp_sum(sum);
  const Index brightness = 4 * total / (Index{255} * size);
  int word = 16 * static_cast<int>(brightness < 3 ? brightness : 3);
  for (int i = 0; i < 4; ++i)
    if (Index{warp_sum(quadrants[i])} * pixels > total * (half * half)) word += 1 << i;
  if (lane() == 0) args.words[token] = word;
}

// Rows are tokens, CLS among them.
struct EmbedPass {
  EmbedTokens args;

  template <typename Octet>
  __device__ Eight constants(const Octet& octet) const {
    return octet.load(args.bias);
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight& bias) const {
    const Index tokens = args.patches + 1, sample = row / tokens, token = row % tokens;
    Eight y;
    if (token == 0) {
      y = octet.load(args.cls);
    } else {
      y = octet.load(args.projected + (sample * args.patches + token - 1) * args.width);
      const Eight position = octet.load(args.positions + (token - 1) * args.width);
      for (int i = 0; i < 8; ++i) y.at[i] = y.at[i] + bias.at[i] + position.at[i];
    }
    octet.store(args.y + row * args.width, y);
    return {};
  }
};

// Rows are samples, whose columns are those of CLS, then those of all patches: d_projected is d_y less CLS, and the
// sums are d_cls and d_positions.
struct EmbedBackwardPass {
  EmbedTokensBackward args;

  template <typename Octet>
  __device__ Eight constants(const Octet&) const {
    return {};
  }
  template <bool kAligned>
  __device__ Eight row(Index row, const Octet<kAligned>& octet, const Eight&) const {
    const int width = static_cast<int>(args.width);
    const Eight d_y = octet.load(args.d_y + row * (args.patches + 1) * width);
    float* const d_projected = args.d_projected + row * args.patches * width;
    for (int four = 0; four < 8; four += 4) {
      const int col = octet.first + four - width;  // of d_projected
      const Four values{{d_y.at[four], d_y.at[four + 1], d_y.at[four + 2], d_y.at[four + 3]}};
      if (col >= 0)
        write_four<kAligned>(d_projected + col, values, octet.count - four);
      else if constexpr (!kAligned)
        for (int i = -col; i < 4; ++i)
          if (i < octet.count - four) d_projected[col + i] = values.at[i];
    }
    return d_y;
  }
};

}  // namespace

void patchify(const Context& context, const Patchify& args) {
  launch(context, {.blocks = args.samples}, patchify_kernel, args);
}

void patch_words(const Context& context, const PatchWords& args) {
  const Index tokens = args.samples * (1 + args.patches_per_sample);
  launch(context, {.blocks = ceil_div(tokens * kWarpSize, 256)}, patch_words_kernel, args);
}

void embed_tokens(const Context& context, const EmbedTokens& args) {
  for_columns(context, args.samples * (args.patches + 1), args.width,
              are_aligned(args.width, args.projected, args.bias, args.positions, args.cls, args.y), EmbedPass{args});
}

void embed_tokens_backward(const Context& context, const EmbedTokensBackward& args) {
  sum_columns(context, args.samples, (args.patches + 1) * args.width,
              are_aligned(args.width, args.d_y, args.d_projected), EmbedBackwardPass{args},
              {args.d_cls, args.width, args.d_positions});
  add_partial_sums(context, args.patches, args.width, args.d_positions, {args.d_bias, args.width});
}

}  // namespace switchyard::kernels::cuda
