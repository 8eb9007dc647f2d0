#include <algorithm>
#include <numbers>
#include <numeric>
#include <set>

#include "kernel_test.hpp"
#include "kernels/api/embedding.hpp"

namespace switchyard::kernels {
namespace {

using Bytes = TestVector<std::uint8_t>;

struct PatchCase {
  Index samples, height, width, channels, patch;
  int crop_padding;
  bool flip, flip_vertical = false;
  double rotation = 0, scaling = 0;
};
constexpr PatchCase kPatchCases[] = {{0, 4, 4, 1, 2, 1, true},
                                     {1, 1, 1, 1, 1, 0, false},
                                     {3, 4, 6, 3, 2, 0, false},
                                     {9, 28, 28, 1, 7, 2, true},
                                     {5, 8, 8, 3, 4, 4, false},
                                     {5, 6, 6, 4, 3, 0, true},
                                     {4, 5, 7, 3, 1, 0, false},
                                     {4, 5, 7, 3, 1, 1, true},
                                     {9, 6, 9, 2, 3, 1, false, true},
                                     {9, 5, 7, 3, 1, 2, true, true},
                                     {0, 4, 4, 1, 2, 1, true, true, 30, 0.5},
                                     {3, 1, 1, 1, 1, 0, false, false, 180, 0},
                                     {9, 5, 7, 3, 1, 0, false, false, 180, 0},
                                     {9, 28, 28, 1, 7, 0, false, false, 0, 0.9},
                                     {9, 9, 15, 3, 3, 2, true, true, 30, 0.3}};

// What Patchify makes of the pixel (y, x) of a sample's image before it is mirrored, from the equations there.
double reference_pixel(const Patchify& args, const std::uint8_t* image, std::uint32_t row, Index y, Index x, Index c) {
  const auto turn = random_words(args.key, row, 1);
  const double angle = args.rotation * (2.0 * to_unit_float(turn[0]) - 1) * std::numbers::pi / 180;
  const double factor = 1 + args.scaling * (2.0 * to_unit_float(turn[1]) - 1);
  const double middle_y = static_cast<double>(args.height - 1) / 2, middle_x = static_cast<double>(args.width - 1) / 2;
  const double down = (static_cast<double>(y) - middle_y) / factor,
               right = (static_cast<double>(x) - middle_x) / factor;
  const double from_y = middle_y + std::sin(angle) * right + std::cos(angle) * down;
  const double from_x = middle_x + std::cos(angle) * right - std::sin(angle) * down;
  double sum = 0;
  for (Index image_y = 0; image_y < args.height; ++image_y)
    for (Index image_x = 0; image_x < args.width; ++image_x)
      sum += std::max(0.0, 1 - std::fabs(from_y - static_cast<double>(image_y))) *
             std::max(0.0, 1 - std::fabs(from_x - static_cast<double>(image_x))) *
             image[(image_y * args.width + image_x) * args.channels + c];
  return sum;
}

class PatchifyCases : public testing::TestWithParam<PatchCase> {};

TEST_P(PatchifyCases, MatchesTheReference) {
  const PatchCase p = GetParam();
  const Index pixels = p.height * p.width * p.channels;
  Bytes images(static_cast<std::size_t>(p.samples * pixels));
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(i * 37 + i / 256);
  Patchify args{.samples = p.samples,
                .height = p.height,
                .width = p.width,
                .channels = p.channels,
                .patch = p.patch,
                .images = images.data(),
                .mean = {0.5f, 0.4f, 0.3f, 0.2f},
                .deviation = {0.2f, 0.3f, 0.4f, 0.5f},
                .crop_padding = p.crop_padding,
                .flip = p.flip,
                .flip_vertical = p.flip_vertical,
                .rotation = p.rotation,
                .scaling = p.scaling,
                .key = {.seed = 99, .purpose = Purpose::kAugment, .step = 3},
                .first_row = 1000};
  const Floats patches = on_all_threads([&](const Context& context) -> std::vector<Floats> {
    Output out(p.samples * pixels);
    args.patches = out.data();
    patchify(context, args);
    return {out.values()};
  })[0];

  // Pixel values, where nothing is turned: those of the image, and otherwise within half of one and what rounding
  // cosine and sine moves.
  Floats found(patches.size());
  Doubles expected(patches.size());
  for (Index s = 0; s < p.samples; ++s) {
    const std::uint32_t row = 1000 + static_cast<std::uint32_t>(s);
    const auto words = random_words(args.key, row, 0);
    const Index dy = Index{to_below(words[0], static_cast<std::uint32_t>(2 * p.crop_padding + 1))} - p.crop_padding;
    const Index dx = Index{to_below(words[1], static_cast<std::uint32_t>(2 * p.crop_padding + 1))} - p.crop_padding;
    const bool mirror = p.flip && words[2] >= 0x80000000u, upside_down = p.flip_vertical && words[3] >= 0x80000000u;
    const Index columns_of_patches = p.width / p.patch;
    for (Index y = 0; y < p.height; ++y)
      for (Index x = 0; x < p.width; ++x)
        for (Index c = 0; c < p.channels; ++c) {
          const Index to_y = upside_down ? p.height - 1 - y : y, to_x = mirror ? p.width - 1 - x : x;
          const Index patch_idx = to_y / p.patch * columns_of_patches + to_x / p.patch;
          const Index element = (c * p.patch + to_y % p.patch) * p.patch + to_x % p.patch;
          const auto i = static_cast<std::size_t>(s * pixels + patch_idx * p.channels * p.patch * p.patch + element);
          const auto channel = static_cast<std::size_t>(c);
          found[i] = (patches[i] * args.deviation[channel] + args.mean[channel]) * 255;
          ASSERT_NEAR(found[i], std::round(found[i]), 1e-3) << "not a pixel value";
          expected[i] = reference_pixel(args, images.data() + s * pixels, row, y + dy, x + dx, c);
        }
  }
  const bool turned = p.rotation != 0 || p.scaling != 0;
  for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], turned ? 0.6 : 1e-3) << i;
}

INSTANTIATE_TEST_SUITE_P(Shapes, PatchifyCases, testing::ValuesIn(kPatchCases));

TEST(Patchify, DrawsEveryShiftAndBothMirrorings) {
  ThreadPool threads(1);
  const Context context = test_context(threads);
  // One bright pixel in the middle of a 9 x 9 image shows where the crop and the mirror put it.
  constexpr Index kSamples = 500, kSide = 9;
  Bytes images(kSamples * kSide * kSide, 0);
  for (Index s = 0; s < kSamples; ++s) images[static_cast<std::size_t>((s * kSide + 4) * kSide + 4)] = 255;
  Output out(kSamples * kSide * kSide);
  patchify(context, {.samples = kSamples,
                     .height = kSide,
                     .width = kSide,
                     .channels = 1,
                     .patch = kSide,
                     .images = images.data(),
                     .patches = out.data(),
                     .mean = {0},
                     .deviation = {1},
                     .crop_padding = 1,
                     .flip = true,
                     .key = {.seed = 5, .purpose = Purpose::kAugment}});
  const Floats values = out.values();
  std::array<int, kSide * kSide> count{};
  for (std::size_t i = 0; i < values.size(); ++i) count[i % count.size()] += values[i] == 1;
  for (Index y = 3; y <= 5; ++y)
    for (Index x = 3; x <= 5; ++x) EXPECT_GT(count[static_cast<std::size_t>(y * kSide + x)], 20) << y << ", " << x;
}

// (samples, side, side) images of one channel as training sees them, with pixel values 0 to 255.
Floats augmented(const Bytes& images, Index side, Patchify args) {
  ThreadPool threads(1);
  args.samples = static_cast<Index>(images.size()) / (side * side);
  args.height = args.width = args.patch = side;
  args.channels = 1;
  args.images = images.data();
  args.mean[0] = 0, args.deviation[0] = 1 / 255.0f;
  args.key = {.seed = 5, .purpose = Purpose::kAugment};
  Output out(std::ssize(images));
  args.patches = out.data();
  patchify(test_context(threads), args);
  Floats values = out.values();
  for (float& value : values) value = std::round(value);
  return values;
}

// The first row whose draw `word` of those for rotation and scaling is nearly `wanted`, -1 for the least to 1.
std::uint32_t row_that_draws(std::size_t word, double wanted) {
  for (std::uint32_t row = 0;; ++row) {
    const auto words = random_words({.seed = 5, .purpose = Purpose::kAugment}, row, 1);
    if (std::fabs(2.0 * to_unit_float(words[word]) - 1 - wanted) < 2e-4) return row;
  }
}

Bytes noise(Index size) {
  Bytes values(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::uint8_t>(random_words({.seed = 3}, 0, static_cast<std::uint32_t>(i))[0] >> 24);
  return values;
}

TEST(Patchify, ATurnByNothingIsNone) {
  const Bytes images = noise(20 * 11 * 11);
  const Floats cropped = augmented(images, 11, {.crop_padding = 2, .flip = true, .flip_vertical = true});
  const Patchify turned{.crop_padding = 2, .flip = true, .flip_vertical = true, .rotation = 1e-6, .scaling = 1e-8};
  EXPECT_TRUE(same_bits(augmented(images, 11, turned), cropped));
  EXPECT_TRUE(same_bits(augmented(images, 11, {}), Floats(images.begin(), images.end())));
}

TEST(Patchify, AQuarterTurnIsCounterClockwise) {
  constexpr Index kSide = 9;
  Bytes image(kSide * kSide, 0);
  image[4 * kSide + 7] = 200;  // to the right of the centre
  const Floats turned = augmented(image, kSide, {.rotation = 180, .first_row = row_that_draws(0, 0.5)});
  EXPECT_NEAR(turned[1 * kSide + 4], 200, 2) << "above it";
  EXPECT_NEAR(std::accumulate(turned.begin(), turned.end(), 0.0f), 200, 4);
}

TEST(Patchify, AFactorAboveOneEnlarges) {
  constexpr Index kSide = 21;
  Bytes image(kSide * kSide, 0);
  image[10 * kSide + 16] = 200;  // 6 pixels from the centre
  const auto at_distance = [&](std::size_t distance, double wanted) {
    return augmented(image, kSide,
                     {.scaling = 0.5, .first_row = row_that_draws(1, wanted)})[10 * kSide + 10 + distance];
  };
  EXPECT_NEAR(at_distance(6, 0), 200, 2);
  EXPECT_NEAR(at_distance(9, 1), 200, 2) << "1.5 times as far";
  EXPECT_NEAR(at_distance(3, -1), 200, 2) << "half as far";
}

TEST(Patchify, ARowHasItsOwnDrawsHoweverManyThereAre) {
  constexpr Index kSide = 9, kSamples = 7;
  const Bytes one = noise(kSide * kSide);
  Bytes images;
  for (Index s = 0; s < kSamples; ++s) images.insert(images.end(), one.begin(), one.end());
  Patchify args{.crop_padding = 1, .flip = true, .flip_vertical = true, .rotation = 40, .scaling = 0.2};
  const Floats together = augmented(images, kSide, args);
  std::set<Floats> different;
  for (Index s = 0; s < kSamples; ++s) {
    args.first_row = static_cast<std::uint32_t>(s);
    const Floats alone = augmented(one, kSide, args);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + s * kSide * kSide)) << s;
    different.insert(alone);
  }
  EXPECT_EQ(different.size(), std::size_t{kSamples});
}

TEST(Patchify, FlipsAreDrawnApart) {
  constexpr Index kSide = 3, kSamples = 400;
  Bytes images(kSamples * kSide * kSide, 0);
  for (std::size_t s = 0; s < kSamples; ++s) images[s * 9] = 255;  // the upper left corner
  const auto corners = [&](const Patchify& args) {
    const Floats flipped = augmented(images, kSide, args);
    std::array<int, 4> count{};
    for (std::size_t s = 0; s < kSamples; ++s)
      for (std::size_t corner = 0; corner < 4; ++corner)
        count[corner] += flipped[s * 9 + corner / 2 * 6 + corner % 2 * 2] == 255;
    return count;
  };
  for (const int count : corners({.flip = true, .flip_vertical = true})) EXPECT_NEAR(count, kSamples / 4, 40);
  const auto across = corners({.flip = true}), down = corners({.flip_vertical = true});
  EXPECT_EQ(across[0] + across[1], kSamples);
  EXPECT_EQ(down[0] + down[2], kSamples);
}

}  // namespace
}  // namespace switchyard::kernels
