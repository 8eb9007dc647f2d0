#include "kernels/api/embedding.hpp"

#include <algorithm>

#include "kernel_test.hpp"

namespace switchyard::kernels {
namespace {

using Bytes = TestVector<std::uint8_t>;

constexpr std::array<float, kMaxChannels> kMean{0.2860f, 0.4f, 0.3f, 0.2f}, kDeviation{0.3530f, 0.3f, 0.4f, 0.5f};

// The words of images that one patch covers: all channels of a pixel follow each other.
Ints words_of(const Bytes& images, Index samples, Index side, Index channels, Index patch) {
  const Index patches_per_sample = side / patch * (side / patch);
  const Floats words = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Floats patches(images.size());
    IntOutput out(samples * (1 + patches_per_sample));
    patchify(context, {.samples = samples,
                       .height = side,
                       .width = side,
                       .channels = channels,
                       .patch = patch,
                       .images = images.data(),
                       .patches = patches.data(),
                       .mean = kMean,
                       .deviation = kDeviation});
    patch_words(context, {.samples = samples,
                          .patches_per_sample = patches_per_sample,
                          .channels = channels,
                          .patch = patch,
                          .patches = patches.data(),
                          .mean = kMean,
                          .deviation = kDeviation,
                          .words = out.data()});
    return {out.floats()};
  })[0];
  return {words.begin(), words.end()};
}

TEST(PatchWords, MatchTheReference) {
  struct Case {
    Index samples, side, channels, patch;
  };
  for (const auto& [samples, side, channels, patch] : {Case{0, 4, 1, 2}, Case{1, 1, 1, 1}, Case{5, 8, 3, 4},
                                                       Case{17, 28, 1, 7}, Case{9, 9, 4, 3}, Case{3, 17, 2, 17}}) {
    SCOPED_TRACE(testing::Message() << "patch " << patch << ", channels " << channels);
    Bytes images(static_cast<std::size_t>(samples * side * side * channels));
    for (std::size_t i = 0; i < images.size(); ++i)  // brighter and darker samples
      images[i] = static_cast<std::uint8_t>(random_words({.seed = 8}, 0, static_cast<std::uint32_t>(i))[0] %
                                            (20 + 3 * (i / 40 % 80)));
    const Ints words = words_of(images, samples, side, channels, patch);
    std::size_t next = 0;
    for (Index s = 0; s < samples; ++s) {
      ASSERT_EQ(words[next++], kClsWord);
      for (Index patch_y = 0; patch_y < side; patch_y += patch)
        for (Index patch_x = 0; patch_x < side; patch_x += patch) {
          const auto mean_of = [&](Index y0, Index y1, Index x0, Index x1) {
            double sum = 0;
            for (Index y = y0; y < y1; ++y)
              for (Index x = x0; x < x1; ++x)
                for (Index c = 0; c < channels; ++c)
                  sum +=
                      images[static_cast<std::size_t>(((s * side + patch_y + y) * side + patch_x + x) * channels + c)];
            return sum / static_cast<double>((y1 - y0) * (x1 - x0) * channels);
          };
          const Index half = (patch + 1) / 2, rest = patch / 2;
          const double m = mean_of(0, patch, 0, patch);
          int word = 16 * std::min(3, static_cast<int>(4 * m / 255));
          word += mean_of(0, half, 0, half) > m ? 1 : 0;
          word += mean_of(0, half, rest, patch) > m ? 2 : 0;
          word += mean_of(rest, patch, 0, half) > m ? 4 : 0;
          word += mean_of(rest, patch, rest, patch) > m ? 8 : 0;
          ASSERT_EQ(words[next++], word) << "sample " << s << ", patch at " << patch_y << ", " << patch_x;
        }
    }
  }
}

TEST(PatchWords, OfOneGreyHaveNoBrighterQuadrantWhateverTheNormalisation) {
  Bytes images(256 * 49);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i / 49);
  const Ints words = words_of(images, 256, 7, 1, 7);
  for (std::size_t grey = 0; grey < 256; ++grey)
    EXPECT_EQ(words[2 * grey + 1], 16 * std::min<std::int32_t>(3, static_cast<std::int32_t>(4 * grey / 255))) << grey;
}

struct TokenCase {
  Index samples, patches, width;
};
class EmbedTokensCases : public testing::TestWithParam<TokenCase> {};

TEST_P(EmbedTokensCases, ForwardAndBackwardMatchTheReference) {
  const auto [samples, patches, width] = GetParam();
  const Index tokens = patches + 1;
  const Floats projected = random_floats(samples * patches * width, 1), bias = random_floats(width, 2);
  const Floats positions = random_floats(patches * width, 3), cls = random_floats(width, 4);
  const Floats d_y = random_floats(samples * tokens * width, 5);
  const auto outputs = on_all_threads(
      [&, samples = samples, patches = patches, width = width](const Context& context) -> std::vector<Floats> {
        Output y(samples * tokens * width), d_projected(samples * patches * width), d_bias(width),
            d_positions(patches * width), d_cls(width);
        embed_tokens(context, {.samples = samples,
                               .patches = patches,
                               .width = width,
                               .projected = projected.data(),
                               .bias = bias.data(),
                               .positions = positions.data(),
                               .cls = cls.data(),
                               .y = y.data()});
        embed_tokens_backward(context, {.samples = samples,
                                        .patches = patches,
                                        .width = width,
                                        .d_y = d_y.data(),
                                        .d_projected = d_projected.data(),
                                        .d_bias = d_bias.data(),
                                        .d_positions = d_positions.data(),
                                        .d_cls = d_cls.data()});
        return {y.values(), d_projected.values(), d_bias.values(), d_positions.values(), d_cls.values()};
      });
  Doubles y, d_projected;
  Sums d_bias(bias.size()), d_positions(positions.size()), d_cls(cls.size());
  for (Index s = 0; s < samples; ++s)
    for (Index t = 0; t < tokens; ++t)
      for (Index c = 0; c < width; ++c) {
        const auto column = static_cast<std::size_t>(c);
        const auto position = static_cast<std::size_t>((t - 1) * width + c);
        const double gradient = d_y[static_cast<std::size_t>((s * tokens + t) * width + c)];
        if (t == 0) {
          y.push_back(cls[column]);
          d_cls[column] += gradient;
          continue;
        }
        y.push_back(double{projected[static_cast<std::size_t>((s * patches + t - 1) * width + c)]} + bias[column] +
                    positions[position]);
        d_projected.push_back(gradient);
        d_positions[position] += gradient;
        d_bias[column] += gradient;
      }
  expect_near(outputs[0], y, 1e-6, "y");
  expect_near(outputs[1], d_projected, 0, "d_projected");
  expect_sums(outputs[2], d_bias, "d_bias");
  expect_sums(outputs[3], d_positions, "d_positions");
  expect_sums(outputs[4], d_cls, "d_cls");
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbedTokensCases,
                         testing::Values(TokenCase{0, 3, 5}, TokenCase{1, 1, 1}, TokenCase{2, 3, 17},
                                         TokenCase{5, 16, 65}, TokenCase{17, 2, 25}));

}  // namespace
}  // namespace switchyard::kernels
