#include <limits>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

// What a thread knows of its group's rows while keys go by: with m the maximum of the scores so far, sum is that of
// exp(score - m), and out that of exp(score - m) M v (Milakov & Gimelshein, 1805.02867).
template <int kSize>
struct RunningRows {
  float max[kGroupRows], sum[kGroupRows];
  float out[kGroupRows][kLaneCols<kSize>];

  __device__ RunningRows() {
    for (int r = 0; r < kGroupRows; ++r) {
      max[r] = -std::numeric_limits<float>::infinity();
      sum[r] = 0;
      for (int w = 0; w < kLaneCols<kSize>; ++w) out[r][w] = 0;
    }
  }

  // scores: of row r of the group; becomes exp(score - m).
  template <int kCols>
  __device__ void advance(int r, float (&scores)[kCols]) {
    float new_max = max[r];
    for (int c = 0; c < kCols; ++c) new_max = fmaxf(new_max, scores[c]);
    new_max = group_max(new_max);
    float new_sum = 0;
    for (int c = 0; c < kCols; ++c) {
      scores[c] = expf(scores[c] - new_max);
      new_sum += scores[c];
    }
    const float shrink = expf(max[r] - new_max);
    sum[r] = sum[r] * shrink + group_sum(new_sum);
    max[r] = new_max;
    for (int w = 0; w < kLaneCols<kSize>; ++w) out[r][w] *= shrink;
  }
};

template <int kSize>
struct SharedRows {
  float* q;       // (kTileRows, kStride), over sqrt(head_size)
  float* k;       // (kTileCols, kStride)
  float* v;       // (kTileCols, kStride)
  float* scores;  // (kTileRows, kScoreStride)

  __device__ explicit SharedRows(float* memory) {
    q = memory;
    k = q + kTileRows * kStride<kSize>;
    v = k + kTileCols * kStride<kSize>;
    scores = v + kTileCols * kStride<kSize>;
  }
  static constexpr Index kFloats = (kTileRows + 2 * kTileCols) * kStride<kSize> + kTileRows * kScoreStride;
};

template <int kSize, int kCols>
__device__ void attend_keys(const Attention& args, const KeptKeys& keys, const SharedRows<kSize>& shared, int first_row,
                            int first_key, RunningRows<kSize>& rows) {
  float scores[kGroupRows][kCols];
  multiply_rows<kSize>(shared.q, shared.k, static_cast<int>(args.head_size), scores);
  for (int c = 0; c < kCols; ++c)
    if (first_key + c * kGroupLanes + group_lane() >= args.tokens)
      for (int r = 0; r < kGroupRows; ++r) scores[r][c] = -std::numeric_limits<float>::infinity();
  const auto kept = kept_of_queries<kCols>(keys, first_row, first_key);
  for (int r = 0; r < kGroupRows; ++r) {
    rows.advance(r, scores[r]);
    float* to = shared.scores + (group() * kGroupRows + r) * kScoreStride + group_lane();
    for (int c = 0; c < kCols; ++c) to[c * kGroupLanes] = scores[r][c] * kept.factor(keys.dropout.scale, r, c);
  }
  __syncwarp();  // a group reads its own rows only
  add_products<kSize>(shared.scores, shared.v, kCols * kGroupLanes, rows.out);
}

template <int kSize>
__global__ void __launch_bounds__(kTileThreads, kSize <= 64 ? 4 : 2)
    attention_kernel(Attention args, DropoutFactors dropout, int num_tiles) {
  const SharedRows<kSize> shared(dynamic_shared<float>());
  const int tokens = static_cast<int>(args.tokens), size = static_cast<int>(args.head_size);
  const TilePlace place = tile_place(blockIdx.x, static_cast<int>(args.heads), num_tiles);
  const Index width = args.heads * size, first_token = place.sample * tokens, column = place.head * size;
  const auto part = [&](int which, float factor) {
    const Index offset = which * width + column;
    return HeadRows{args.qkv.values + first_token * 3 * width + offset, 3 * width, args.bias + offset, factor};
  };
  load_rows<kSize>(part(0, 1.0f / sqrtf(static_cast<float>(size))), place.first_row, kTileRows, tokens, size, shared.q);
  const KeptKeys keys = kept_keys(dropout.with_step_read(), place.sample, place.head, tokens);
  const bool has_rows = place.first_row + warp() * 2 * kGroupRows < tokens;  // the warp, to keep its lanes together
  RunningRows<kSize> rows;
  for (int first_key = 0; first_key < tokens; first_key += kTileCols) {
    const int num_keys = tokens - first_key < kTileCols ? tokens - first_key : kTileCols;
    __syncthreads();  // the last keys have been read
    load_rows<kSize>(part(1, 1), first_key, (num_keys + 15) / 16 * 16, tokens, size, shared.k);
    load_rows<kSize>(part(2, 1), first_key, (num_keys + 15) / 16 * 16, tokens, size, shared.v);
    __syncthreads();
    if (!has_rows) continue;
    with_cols(num_keys, [&](auto cols) {
      attend_keys<kSize, decltype(cols)::value>(args, keys, shared, place.first_row, first_key, rows);
    });
  }

  for (int r = 0; r < kGroupRows; ++r) {
    const int token = place.first_row + group() * kGroupRows + r;
    if (token >= tokens) return;
    const Index row = first_token + token;
    const Index to = row * width + column, to_rounded = row * rounded_cols(width) + column;
    for (int w = 0; w < kLaneCols<kSize>; ++w) {
      const int col = lane_col<kSize>(w);
      if (col >= size) continue;
      const float value = rows.out[r][w] / rows.sum[r];
      if (args.out.values) args.out.values[to + col] = value;
      if (args.out.rounded) write_rounded(args.out.rounded + to_rounded + col, value);
    }
    if (group_lane() == 0)
      args.log_sum_exp[(place.sample * args.heads + place.head) * tokens + token] = rows.max[r] + logf(rows.sum[r]);
  }
}

}  // namespace

void attention(const Context& context, const Attention& args) {
  if (args.precision == Precision::kBf16) return attention_bf16(context, args);
  const auto num_tiles = static_cast<int>(ceil_div(args.tokens, kTileRows));
  with_head_size(args.head_size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    launch(context,
           {.blocks = args.samples * args.heads * num_tiles,
            .threads = kTileThreads,
            .shared_bytes = SharedRows<kSize>::kFloats * Index{sizeof(float)}},
           attention_kernel<kSize>, args, factors_of(args.dropout), num_tiles);
  });
}

}  // namespace switchyard::kernels::cuda
