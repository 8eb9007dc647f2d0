// Forward in bf16: a block has a tile of queries of one (sample, head), a warp 16 of them. Scores of 16 queries and 16
// keys are made twice, first for their maximum, then for exp(score - maximum), which costs less than to correct sums
// for a maximum that grows; from one tile of keys to the next sums are so corrected (Milakov & Gimelshein, 1805.02867).
#include <limits>

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// That a multiprocessor's registers hold.
template <int kSize>
constexpr int kBlocks = kSize <= 32   ? 4
                        : kSize == 64 ? 3
                                      : 2;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Of the 16 queries of a warp; a lane has rows g and g + 8. With m the maximum of the scores so far, sum is the lane's
// part of that of exp((score - m) / sqrt(head_size)), and out that of the same over keys that dropout keeps, times v.
template <int kSize>
struct RunningRows {
  float max[2] = {-kInfinity, -kInfinity}, sum[2] = {0, 0};
  FragmentC out[kSize / 8] = {};
};

// Over the four lanes that share a row.
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kWholeWarp, x, 1);
  return x + __shfl_xor_sync(kWholeWarp, x, 2);
}
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 1));
  return fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 2));
}

// Scores before they are divided by sqrt(head_size), of 16 keys of which there are num_keys; minus infinity beyond.
template <int kSize>
__device__ inline void scores_of(const HeldRows<kSize>& queries, const Bf16* keys, int num_keys,
                                 FragmentC (&scores)[2]) {
  multiply_rows<kSize>(queries, keys, scores);
  if (num_keys >= 16) return;
#pragma unroll
  for (int tile = 0; tile < 2; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (tile * 8 + lane() % 4 * 2 + i % 2 >= num_keys) scores[tile].at[i] = -kInfinity;
}

// keys, values: the tile's, (tokens, kSize), of which there are num_keys; exponent: log2(e) / sqrt(head_size).
template <int kSize>
__device__ inline void attend_keys(const HeldRows<kSize>& queries, const Bf16* keys, const Bf16* values, int num_keys,
                                   float exponent, const KeptKeys& kept_keys, int first_query, int first_key,
                                   RunningRows<kSize>& rows) {
  FragmentC scores[2];
  float max[2] = {rows.max[0], rows.max[1]};
#pragma unroll 1
  for (int key = 0; key < num_keys; key += 16) {
    scores_of<kSize>(queries, keys + key * kRowStride<kSize>, num_keys - key, scores);
#pragma unroll
    for (int i = 0; i < 4; ++i) max[i / 2] = fmaxf(max[i / 2], fmaxf(scores[0].at[i], scores[1].at[i]));
  }
  float offset[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    max[r] = row_max(max[r]);
    offset[r] = -max[r] * exponent;
    const float shrink = exp2f(fmaf(rows.max[r], exponent, offset[r]));
    rows.max[r] = max[r];
    rows.sum[r] *= shrink;
    for (FragmentC& tile : rows.out) {
      tile.at[2 * r] *= shrink;
      tile.at[2 * r + 1] *= shrink;
    }
  }
#pragma unroll 1
  for (int key = 0; key < num_keys; key += 16) {
    scores_of<kSize>(queries, keys + key * kRowStride<kSize>, num_keys - key, scores);
    const KeptOfQueries kept(kept_keys, first_query, first_key + key);
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float p = exp2f(fmaf(scores[tile].at[i], exponent, offset[i / 2]));
        rows.sum[i / 2] += p;
        scores[tile].at[i] = kept(tile, i) ? p : 0.0f;
      }
    add_products<kSize>(rounded_a(scores), values + key * kRowStride<kSize>, rows.out);
  }
}

// kOneTile: all keys are in one tile, and registers need not outlast the loading of another.
template <int kSize, bool kOneTile>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize, kBlocks<kSize>)
    attention_mma_kernel(Attention args, DropoutFactors dropout, Tiles tiles) {
  const int tokens = static_cast<int>(args.tokens), size = static_cast<int>(args.head_size);
  const Index head_row = static_cast<Index>(blockIdx.x) / tiles.count;  // (sample, head)
  const Index sample = head_row / args.heads;
  const int head = static_cast<int>(head_row - sample * args.heads);
  const int first_of_warp = warp() * kWarpTokens;
  const int first_query =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles.count)) * tiles.tokens() + first_of_warp;
  const int width = static_cast<int>(args.heads) * size, column = head * size;
  const Index first_row = sample * tokens;
  const auto load = [&](int which, int first_token, Bf16* to) {  // of q, k, v: 0, 1, 2
    const HeadArray rows(args.qkv, first_row, 3 * width, which * width + column, args.bias);
    load_rows<kSize>(rows, first_token, tokens, size, to + first_of_warp * kRowStride<kSize>);
  };
  Bf16* const keys = dynamic_shared<Bf16>();  // (tile's tokens, kRowStride), as are the values
  Bf16* const values = keys + tiles.tokens() * kRowStride<kSize>;

  load(0, first_query, keys);
  __syncwarp();
  const HeldRows<kSize> queries(keys + first_of_warp * kRowStride<kSize>);
  const KeptKeys kept = kept_keys(dropout.with_step_read(), sample, head, tokens);
  const float factor = 1.0f / sqrtf(static_cast<float>(size));
  RunningRows<kSize> rows;
  for (int tile = 0; tile < (kOneTile ? 1 : tiles.count); ++tile) {
    const int first_key = tile * tiles.tokens();
    __syncthreads();  // the queries, or the last keys, have been read
#pragma unroll 1
    for (int which = 1; which < 3; ++which) load(which, first_key + first_of_warp, which == 1 ? keys : values);
    __syncthreads();
    const int num_keys = tokens_in_tile(tokens, first_key, tiles);
    if (first_query < tokens)
      attend_keys<kSize>(queries, keys, values, num_keys, factor * kLog2E, kept, first_query, first_key, rows);
  }
  __syncthreads();  // keys and values have been read
  if (first_query >= tokens) return;

  const float sums[2] = {row_sum(rows.sum[0]), row_sum(rows.sum[1])};
  float* const out = reinterpret_cast<float*>(keys) + first_of_warp * kRowStride<kSize>;  // takes the place of both
  spread_tiles<kSize>(rows.out, dropout.scale / sums[0], dropout.scale / sums[1], out);
  __syncwarp();
  store_rows<kSize>(out, args.out, first_row + first_query, width, column, tokens - first_query, size);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = first_query + lane() / 4 + 8 * r;
    if (lane() % 4 == 0 && query < tokens)
      args.log_sum_exp[head_row * tokens + query] = rows.max[r] * factor + logf(sums[r]);
  }
}

}  // namespace

void attention_bf16(const Context& context, const Attention& args) {
  with_head_size(args.head_size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const Tiles tiles = tiles_of(args.tokens);
    launch(context,
           {.blocks = args.samples * args.heads * tiles.count,
            .threads = tiles.warps * kWarpSize,
            .shared_bytes = 2 * tiles.tokens() * kRowStride<kSize> * Index{sizeof(Bf16)}},
           tiles.count == 1 ? attention_mma_kernel<kSize, true> : attention_mma_kernel<kSize, false>, args,
           factors_of(args.dropout), tiles);
  });
}

}  // namespace switchyard::kernels::cuda
