// What training does to an image, as Patchify says: the draws, and the augmented image's pixels. After the draws all is
// in whole numbers, so that rounding is the same everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "core/host_device.hpp"
#include "kernels/api/embedding.hpp"

namespace switchyard::kernels {

struct Augmentation {
  // Pixel (y, x) shows (first_y + step_y y, first_x + step_x x) of the image, turned and scaled or as it is.
  Index first_y = 0, first_x = 0, step_y = 1, step_x = 1;
  bool turns = false;  // turned or scaled
  // The way back, in 2^-16: a pixel at (x, y) from the centre was at (cosine x - sine y, sine x + cosine y).
  Index cosine = 0, sine = 0;

  bool moves() const { return first_y != 0 || first_x != 0 || step_y != 1 || step_x != 1; }
};

// Within +-largest.
SWITCHYARD_HOST_DEVICE inline double draw_up_to(double largest, std::uint32_t word) {
  return largest * (2 * double{to_unit_float(word)} - 1);
}

SWITCHYARD_HOST_DEVICE inline Augmentation draw_augmentation(const Patchify& args, Index sample) {
  Augmentation drawn;
  drawn.turns = args.rotation != 0 || args.scaling != 0;
  if (args.crop_padding == 0 && !args.flip && !args.flip_vertical && !drawn.turns) return drawn;
  const std::uint32_t row = args.first_row + static_cast<std::uint32_t>(sample);
  const auto words = random_words(args.key, row, 0);
  const auto num_offsets = static_cast<std::uint32_t>(2 * args.crop_padding + 1);
  const bool mirror = args.flip && (words[2] >> 31) != 0, upside_down = args.flip_vertical && (words[3] >> 31) != 0;
  drawn.first_y = Index{to_below(words[0], num_offsets)} - args.crop_padding + (upside_down ? args.height - 1 : 0);
  drawn.first_x = Index{to_below(words[1], num_offsets)} - args.crop_padding + (mirror ? args.width - 1 : 0);
  drawn.step_y = upside_down ? -1 : 1;
  drawn.step_x = mirror ? -1 : 1;
  if (!drawn.turns) return drawn;
  const auto turn = random_words(args.key, row, 1);
  const double angle = draw_up_to(args.rotation, turn[0]) * (std::numbers::pi / 180);
  const double scale = 65536 / (1 + draw_up_to(args.scaling, turn[1]));
  drawn.cosine = std::llround(std::cos(angle) * scale);
  drawn.sine = std::llround(std::sin(angle) * scale);
  return drawn;
}

// 0 outside the image, (height, width, channels).
SWITCHYARD_HOST_DEVICE inline int pixel_or_zero(const Patchify& args, const std::uint8_t* image, Index y, Index x,
                                                int channel) {
  const bool inside = y >= 0 && y < args.height && x >= 0 && x < args.width;
  return inside ? image[(y * args.width + x) * args.channels + channel] : 0;
}

// At pixel (y, x) of the image turned and scaled.
SWITCHYARD_HOST_DEVICE inline int turned_pixel(const Patchify& args, const Augmentation& drawn,
                                               const std::uint8_t* image, Index y, Index x, int channel) {
  // Distances from the centre are in half pixels, what comes of them in 2^-17 pixels.
  constexpr int kBits = 17;
  constexpr Index kPixel = Index{1} << kBits;
  const Index down = 2 * y - (args.height - 1), right = 2 * x - (args.width - 1);
  const Index from_y = (args.height - 1) * (kPixel / 2) + drawn.sine * right + drawn.cosine * down;
  const Index from_x = (args.width - 1) * (kPixel / 2) + drawn.cosine * right - drawn.sine * down;
  const Index top = from_y >> kBits, left = from_x >> kBits;
  const Index lower = from_y - top * kPixel, righter = from_x - left * kPixel;  // shares of the pixels beyond
  const auto in_row = [&](Index row) {
    return (kPixel - righter) * pixel_or_zero(args, image, row, left, channel) +
           righter * pixel_or_zero(args, image, row, left + 1, channel);
  };
  const Index sum = (kPixel - lower) * in_row(top) + lower * in_row(top + 1);
  return static_cast<int>((sum + kPixel * kPixel / 2) >> (2 * kBits));
}

// Pixel (y, x) of the augmented image. kTurns: drawn.turns.
template <bool kTurns>
SWITCHYARD_HOST_DEVICE inline int augmented_pixel(const Patchify& args, const Augmentation& drawn,
                                                  const std::uint8_t* image, Index y, Index x, int channel) {
  const Index from_y = drawn.first_y + drawn.step_y * y, from_x = drawn.first_x + drawn.step_x * x;
  if constexpr (kTurns) return turned_pixel(args, drawn, image, from_y, from_x, channel);
  return pixel_or_zero(args, image, from_y, from_x, channel);
}

}  // namespace switchyard::kernels
