// kernels/cuda/mma.cuh on the emulated GPU: fragments lie in lanes as PTX has them, wherever they come from.
#include "kernels/cuda/mma.cuh"

#include <array>
#include <functional>

#include "kernel_test.hpp"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kStride = 24;
using Matrix = std::array<std::array<float, 16>, 16>;

// Small whole numbers, which bf16 holds and of which no sum is rounded; all different along rows and columns.
Matrix whole_numbers(int seed) {
  Matrix matrix;
  for (int row = 0; row < 16; ++row)
    for (int col = 0; col < 16; ++col)
      matrix[static_cast<std::size_t>(row)][static_cast<std::size_t>(col)] =
          static_cast<float>((row * 31 + col * 17 + row * col * 5 + seed) % 101 - 50);
  return matrix;
}
float at(const Matrix& matrix, int row, int col) {
  return matrix[static_cast<std::size_t>(row)][static_cast<std::size_t>(col)];
}

// As load_a() and the others read it.
void put_in_rows(const Matrix& matrix, bool transposed, Bf16* tile) {
  for (int row = 0; row < 16; ++row)
    for (int col = 0; col < 16; ++col)
      tile[row * kStride + col].bits =
          static_cast<std::uint16_t>(__float_as_uint(transposed ? at(matrix, col, row) : at(matrix, row, col)) >> 16);
}

// PTX ISA, m16n8k16 with .bf16: where elements a0 .. a7, b0 .. b3, c0 .. c3 of a lane belong.
struct Element {
  int row, col;
};
Element of_a(int i) {
  return {lane() / 4 + (i < 2 || (i >= 4 && i < 6) ? 0 : 8), lane() % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
Element of_b(int i) { return {lane() % 4 * 2 + (i & 1) + (i >= 2 ? 8 : 0), lane() / 4}; }
Element of_c(int i) { return {lane() / 4 + (i < 2 ? 0 : 8), lane() % 4 * 2 + (i & 1)}; }

unsigned pair_of(const Matrix& matrix, const Element& first, const Element& second) {
  return rounded_pair(at(matrix, first.row, first.col), at(matrix, second.row, second.col));
}

void on_one_warp(const std::function<void(Bf16* tile)>& body) {
  for (const auto order : {emulated::Order::kForward, emulated::Order::kBackward, emulated::Order::kShuffled}) {
    emulated::set_order(order);
    emulated::run(1, kWarpSize, 16 * kStride * sizeof(Bf16), [&] { body(dynamic_shared<Bf16>()); });
  }
}

TEST(Mma, MultipliesFragments) {
  const Matrix a = whole_numbers(1), b = whole_numbers(2), c = whole_numbers(3);
  on_one_warp([&](Bf16*) {
    FragmentA of_lane_a;
    for (int i = 0; i < 8; i += 2) of_lane_a.pairs[i / 2] = pair_of(a, of_a(i), of_a(i + 1));
    FragmentB of_lane_b;
    for (int i = 0; i < 4; i += 2) of_lane_b.pairs[i / 2] = pair_of(b, of_b(i), of_b(i + 1));
    FragmentC sums;
    for (int i = 0; i < 4; ++i) sums.at[i] = at(c, of_c(i).row, of_c(i).col);
    multiply_add(sums, of_lane_a, of_lane_b);
    for (int i = 0; i < 4; ++i) {
      const auto [row, col] = of_c(i);
      float expected = at(c, row, col);
      for (int k = 0; k < 16; ++k) expected += at(a, row, k) * at(b, k, col);
      EXPECT_EQ(sums.at[i], expected) << row << ", " << col;
    }
  });
}

TEST(Mma, LoadsFragmentsFromRowsOfTheirMatrixOrOfItsTranspose) {
  const Matrix matrix = whole_numbers(4);
  for (const bool transposed : {false, true})
    on_one_warp([&](Bf16* tile) {
      if (lane() == 0) put_in_rows(matrix, transposed, tile);
      __syncwarp();
      const FragmentA a = transposed ? load_a_transposed(tile, kStride) : load_a(tile, kStride);
      for (int i = 0; i < 8; i += 2) EXPECT_EQ(a.pairs[i / 2], pair_of(matrix, of_a(i), of_a(i + 1))) << i;
      const TwoB b = transposed ? load_b_transposed(tile, kStride) : load_b(tile, kStride);
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 4; i += 2) {
          const Element first{of_b(i).row, of_b(i).col + 8 * half}, second{of_b(i + 1).row, of_b(i + 1).col + 8 * half};
          EXPECT_EQ(b.at[half].pairs[i / 2], pair_of(matrix, first, second)) << half << ", " << i;
        }
    });
}

TEST(Mma, TakesTwoTilesOfSumsAsTheLeftSideOfTheNextProduct) {
  const Matrix sums = whole_numbers(5);
  on_one_warp([&](Bf16*) {
    FragmentC tiles[2];
    for (int tile = 0; tile < 2; ++tile)
      for (int i = 0; i < 4; ++i) tiles[tile].at[i] = at(sums, of_c(i).row, of_c(i).col + 8 * tile);
    const FragmentA a = rounded_a(tiles);
    for (int i = 0; i < 8; i += 2) EXPECT_EQ(a.pairs[i / 2], pair_of(sums, of_a(i), of_a(i + 1))) << i;
  });
}

TEST(Mma, RoundsToTheNearestBf16) {
  const Floats values = random_floats(1000, 6, 100);
  for (std::size_t i = 0; i + 1 < values.size(); i += 2) {
    const unsigned pair = rounded_pair(values[i], values[i + 1]);
    EXPECT_EQ(__uint_as_float(pair << 16), rounded_to_bf16(values[i]));
    EXPECT_EQ(__uint_as_float(pair & 0xffff0000u), rounded_to_bf16(values[i + 1]));
  }
  EXPECT_EQ(rounded_pair(__uint_as_float(0x3f808000), __uint_as_float(0x3f818000)), 0x3f823f80u);  // ties to even
  EXPECT_TRUE(std::isnan(__uint_as_float(rounded_pair(kPoison, 0) << 16)));
}

}  // namespace
}  // namespace switchyard::kernels::cuda
