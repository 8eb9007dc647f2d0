// With M the dropout's factors, P the probabilities (computed again) and D = rowsum(d_out * out):
// d_V = (P M)^T d_out; d_P = (d_out V^T) M; d_S = P (d_P - D); d_Q = d_S K / sqrt(head_size); d_K = d_S^T Q / sqrt(..).
// d_Q sums over keys and d_K and d_V over queries, each in the registers of the block that owns the row. So the scores
// are computed twice, by blocks of queries and by blocks of keys; that costs 7 products where 5 would do, but no sum is
// shared between blocks.
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

enum class Rows { kQueries, kKeys };  // what a block's rows are; its columns are the others

// What one block needs beside the arguments.
struct Scratch {
  float* dots = nullptr;       // D (samples, heads, tokens): written by blocks of queries, read by blocks of keys
  float* bias_sums = nullptr;  // (samples, num_tiles, 3, heads, head_size): d_qkv summed over each tile's rows
  int num_tiles = 0;
};

// first: K where rows are queries, otherwise Q / sqrt(head_size); second: V, otherwise d_out. Rows are given the pair's
// other half.
template <int kSize>
struct SharedRows {
  float *row_first, *row_second;  // (kTileRows, kStride)
  float *col_first, *col_second;  // (kTileCols, kStride)
  float *d_scores, *scores;       // (kTileRows, kScoreStride)
  static constexpr Index kFloats = 2 * (kTileRows + kTileCols) * kStride<kSize> + 2 * kTileRows * kScoreStride;

  __device__ explicit SharedRows(float* memory) {
    row_first = memory;
    row_second = row_first + kTileRows * kStride<kSize>;
    col_first = row_second + kTileRows * kStride<kSize>;
    col_second = col_first + kTileCols * kStride<kSize>;
    d_scores = col_second + kTileCols * kStride<kSize>;
    scores = d_scores + kTileRows * kScoreStride;
  }
};

// The block's (sample, head) in the arrays.
struct Head {
  const AttentionBackward& args;
  TilePlace place;
  int tokens, size;
  Index width, first_token, column;

  __device__ Head(const AttentionBackward& arguments, const TilePlace& at)
      : args(arguments),
        place(at),
        tokens(static_cast<int>(arguments.tokens)),
        size(static_cast<int>(arguments.head_size)),
        width(arguments.heads * arguments.head_size),
        first_token(at.sample * arguments.tokens),
        column(at.head * arguments.head_size) {}

  __device__ float query_factor() const { return 1.0f / sqrtf(static_cast<float>(size)); }
  // Of q, k, v: 0, 1, 2.
  __device__ HeadRows part(int which) const {
    const Index offset = which * width + column;
    return {args.qkv.values + first_token * 3 * width + offset, 3 * width, args.bias + offset,
            which == 0 ? query_factor() : 1.0f};
  }
  __device__ HeadRows d_out() const { return {args.d_out.values + first_token * width + column, width, nullptr, 1}; }
  __device__ Index by_token() const { return (place.sample * args.heads + place.head) * tokens; }
};

// D of the group's rows; every lane gets it.
template <int kSize>
__device__ void dots_of_rows(const Head& head, const float* d_out, float* dots, float (&group_dots)[kGroupRows]) {
  for (int r = 0; r < kGroupRows; ++r) {
    const int row = group() * kGroupRows + r, token = head.place.first_row + row;
    float sum = 0;
    for (int d = group_lane(); d < head.size && token < head.tokens; d += kGroupLanes)
      sum += d_out[row * kStride<kSize> + d] *
             head.args.out.values[(head.first_token + token) * head.width + head.column + d];
    group_dots[r] = group_sum(sum);
    if (group_lane() == 0 && token < head.tokens) dots[head.by_token() + token] = group_dots[r];
  }
}

template <int kSize>
struct RowGradients {
  float first[kGroupRows][kLaneCols<kSize>];   // d_Q times sqrt(head_size), or d_K
  float second[kGroupRows][kLaneCols<kSize>];  // d_V, where rows are keys
};

template <int kSize, Rows kRows, int kCols>
__device__ void add_tile(const Head& head, const KeptKeys& keys, const SharedRows<kSize>& shared, const float* dots,
                         const float (&group_dots)[kGroupRows], int first_col, RowGradients<kSize>& gradients) {
  float scores[kGroupRows][kCols], d_scores[kGroupRows][kCols];
  multiply_rows<kSize>(shared.row_first, shared.col_first, head.size, scores);
  multiply_rows<kSize>(shared.row_second, shared.col_second, head.size, d_scores);
  const auto kept = kRows == Rows::kQueries ? kept_of_queries<kCols>(keys, head.place.first_row, first_col)
                                            : kept_of_keys<kCols>(keys, head.place.first_row, first_col);

  const float* log_sum_exp = head.args.log_sum_exp + head.by_token();
  for (int c = 0; c < kCols; ++c) {
    const int col = first_col + c * kGroupLanes + group_lane();
    for (int r = 0; r < kGroupRows; ++r) {
      const int row = head.place.first_row + group() * kGroupRows + r;
      float p = 0, d_score = 0;
      if (row < head.tokens && col < head.tokens) {
        const int query = kRows == Rows::kQueries ? row : col;
        const float dot = kRows == Rows::kQueries ? group_dots[r] : dots[head.by_token() + query];
        const float factor = kept.factor(keys.dropout.scale, r, c);
        p = expf(scores[r][c] - log_sum_exp[query]);
        d_score = p * (d_scores[r][c] * factor - dot);
        p *= factor;
      }
      const int place = (group() * kGroupRows + r) * kScoreStride + c * kGroupLanes + group_lane();
      shared.d_scores[place] = d_score;
      if (kRows == Rows::kKeys) shared.scores[place] = p;
    }
  }
  __syncwarp();  // a group reads its own rows only
  add_products<kSize>(shared.d_scores, shared.col_first, kCols * kGroupLanes, gradients.first);
  if (kRows == Rows::kKeys)
    add_products<kSize>(shared.scores, shared.col_second, kCols * kGroupLanes, gradients.second);
}

// Writes the block's rows of part `which` of d_qkv, and their sums. sums: (groups, kSize) in shared memory.
template <int kSize>
__device__ void store_gradients(const Head& head, int which, float factor, const Scratch& scratch, float* sums,
                                const float (&gradients)[kGroupRows][kLaneCols<kSize>]) {
  const Index offset = which * head.width + head.column;
  float column_sums[kLaneCols<kSize>] = {};
  for (int r = 0; r < kGroupRows; ++r) {
    const int token = head.place.first_row + group() * kGroupRows + r;
    if (token >= head.tokens) break;
    const Index row = head.first_token + token;
    const Index to = row * 3 * head.width + offset, to_rounded = row * rounded_cols(3 * head.width) + offset;
    for (int w = 0; w < kLaneCols<kSize>; ++w) {
      const float value = factor * gradients[r][w];
      column_sums[w] += value;
      const int col = lane_col<kSize>(w);
      if (col >= head.size) continue;
      if (head.args.d_qkv.values) head.args.d_qkv.values[to + col] = value;
      if (head.args.d_qkv.rounded) write_rounded(head.args.d_qkv.rounded + to_rounded + col, value);
    }
  }
  __syncthreads();  // what was there has been read
  for (int w = 0; w < kLaneCols<kSize>; ++w) sums[group() * kSize + lane_col<kSize>(w)] = column_sums[w];
  __syncthreads();
  const int col = static_cast<int>(threadIdx.x);
  if (col >= head.size) return;
  float sum = 0;
  for (int g = 0; g < kTileThreads / kGroupLanes; ++g) sum += sums[g * kSize + col];
  const Index tile = head.place.sample * scratch.num_tiles + head.place.tile;
  scratch.bias_sums[tile * 3 * head.width + offset + col] = sum;
}

template <int kSize, Rows kRows>
__global__ void __launch_bounds__(kTileThreads, kSize <= 32   ? 4
                                                : kSize == 64 ? 3
                                                              : 1)
    attention_backward_kernel(AttentionBackward args, DropoutFactors dropout, Scratch scratch) {
  const SharedRows<kSize> shared(dynamic_shared<float>());
  const Head head(args, tile_place(blockIdx.x, static_cast<int>(args.heads), scratch.num_tiles));
  const int tokens = head.tokens, first_row = head.place.first_row;
  const KeptKeys keys = kept_keys(dropout.with_step_read(), head.place.sample, head.place.head, tokens);
  constexpr bool kQueryRows = kRows == Rows::kQueries;
  const auto load = [&](bool queries, int first, int num_rows, float* to_first, float* to_second) {
    load_rows<kSize>(head.part(queries ? 0 : 1), first, num_rows, tokens, head.size, to_first);
    load_rows<kSize>(queries ? head.d_out() : head.part(2), first, num_rows, tokens, head.size, to_second);
  };
  load(kQueryRows, first_row, kTileRows, shared.row_first, shared.row_second);
  __syncthreads();
  float group_dots[kGroupRows] = {};
  if (kQueryRows) dots_of_rows<kSize>(head, shared.row_second, scratch.dots, group_dots);

  RowGradients<kSize> gradients{};
  const bool has_rows = first_row + warp() * 2 * kGroupRows < tokens;  // the warp, to keep its lanes together
  for (int first_col = 0; first_col < tokens; first_col += kTileCols) {
    const int num_cols = tokens - first_col < kTileCols ? tokens - first_col : kTileCols;
    __syncthreads();  // the last columns have been read
    load(!kQueryRows, first_col, (num_cols + 15) / 16 * 16, shared.col_first, shared.col_second);
    __syncthreads();
    if (!has_rows) continue;
    with_cols(num_cols, [&](auto cols) {
      add_tile<kSize, kRows, decltype(cols)::value>(head, keys, shared, scratch.dots, group_dots, first_col, gradients);
    });
  }
  store_gradients<kSize>(head, kQueryRows ? 0 : 1, kQueryRows ? head.query_factor() : 1, scratch, shared.col_first,
                         gradients.first);
  if (!kQueryRows) store_gradients<kSize>(head, 2, 1, scratch, shared.col_first, gradients.second);
}

}  // namespace

void attention_backward(const Context& context, const AttentionBackward& args) {
  if (args.precision == Precision::kBf16) return attention_backward_bf16(context, args);
  const Index width = args.heads * args.head_size, num_tiles = ceil_div(args.tokens, kTileRows);
  const Index dots = args.samples * args.heads * args.tokens;
  Scratch scratch;
  scratch.dots = workspace<float>(context, dots + args.samples * num_tiles * 3 * width);
  scratch.bias_sums = scratch.dots + dots;
  scratch.num_tiles = static_cast<int>(num_tiles);
  with_head_size(args.head_size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const LaunchShape shape{.blocks = args.samples * args.heads * num_tiles,
                            .threads = kTileThreads,
                            .shared_bytes = SharedRows<kSize>::kFloats * Index{sizeof(float)}};
    const DropoutFactors dropout = factors_of(args.dropout);
    launch(context, shape, attention_backward_kernel<kSize, Rows::kQueries>, args, dropout, scratch);
    launch(context, shape, attention_backward_kernel<kSize, Rows::kKeys>, args, dropout, scratch);
  });
  add_partial_sums(context, args.samples * num_tiles, 3 * width, scratch.bias_sums, {args.d_bias, 3 * width});
}

}  // namespace switchyard::kernels::cuda
