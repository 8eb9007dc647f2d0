// Backward in bf16. With M the dropout's factors, P the probabilities (computed again) and D = rowsum(d_out * out):
// d_V = (P M)^T d_out; d_P = (d_out V^T) M; d_S = P (d_P - D); d_Q = d_S K / sqrt(head_size); d_K = d_S^T Q / sqrt(..).
//
// A block has one (sample, head) whole, so that five products do and no sum is shared between blocks. For a tile of
// keys and one of queries, first each warp takes 16 keys: P and d_S are made as keys by queries, which adds d_V and d_K
// to the warp's own sums. Then it takes 16 queries: by way of shared memory d_S becomes queries by keys, which gives
// d_Q. Where keys take more than one tile, d_Q waits in global memory for the next, where the same thread finds it.
#include <limits>

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// What blocks need beside the arguments.
struct Scratch {
  float* bias_sums = nullptr;  // (samples, 3, heads, head_size): d_qkv summed over the sample's tokens
  float4* d_q = nullptr;       // (samples, heads, tiles, warps, kSize / 8, lanes), where there is more than one tile
};

// (tile's tokens, kRowStride) but for the scores and what has another shape here
template <int kSize>
struct SharedRows {
  Bf16 *q, *d_out, *k, *v;
  Bf16* d_scores;      // (tile's keys, score_stride): by queries; before, each warp's `out`
  float* log_sum_exp;  // (tile's queries), times log2(e); infinite beyond the tokens
  float* dots;         // D (tile's queries)
  float* bias_sums;    // (warps, 3, kSize): d_qkv summed over the warp's tokens
  float* gradients;    // of each warp's 16 tokens; takes the place of q and d_out
  int score_stride;

  static __host__ __device__ int score_stride_of(const Tiles& tiles) {
    return (tiles.tokens() > kSize ? tiles.tokens() : kSize) + 8;
  }
  static Index bytes(const Tiles& tiles) {
    const Index tokens = tiles.tokens();
    return tokens * (4 * kRowStride<kSize> + score_stride_of(tiles)) * Index{sizeof(Bf16)} +
           (2 * tokens + tiles.warps * 3 * kSize) * Index{sizeof(float)};
  }
  __device__ SharedRows(Bf16* memory, const Tiles& tiles) : score_stride(score_stride_of(tiles)) {
    const int tokens = tiles.tokens(), elements = tokens * kRowStride<kSize>;
    q = memory;
    d_out = q + elements;
    k = d_out + elements;
    v = k + elements;
    d_scores = v + elements;
    log_sum_exp = reinterpret_cast<float*>(d_scores + tokens * score_stride);
    dots = log_sum_exp + tokens;
    bias_sums = dots + tokens;
    gradients = reinterpret_cast<float*>(q);
  }
};

// The block's (sample, head) in the arrays.
struct Head {
  const AttentionBackward& args;
  int tokens, size;
  Index width, first_row, column, first_of_row;  // of log_sum_exp's row

  __device__ Head(const AttentionBackward& arguments, Index sample, int head)
      : args(arguments),
        tokens(static_cast<int>(arguments.tokens)),
        size(static_cast<int>(arguments.head_size)),
        width(arguments.heads * arguments.head_size),
        first_row(sample * arguments.tokens),
        column(head * arguments.head_size),
        first_of_row((sample * arguments.heads + head) * arguments.tokens) {}

  // Of q, k, v: 0, 1, 2.
  __device__ HeadRows part(int which) const {
    return {args.qkv, first_row, 3 * width, which * width + column, args.bias};
  }
  __device__ HeadRows of_width(const Operand& array) const { return {array, first_row, width, column}; }
};

// x and y: (16, kRowStride) each. Lanes 2 r and 2 r + 1 get the product of rows r, each having summed half of it.
template <int kSize>
__device__ inline float dot_of_row(const Bf16* x, const Bf16* y) {
  const int first = lane() / 2 * kRowStride<kSize> + lane() % 2 * (kSize / 2);
  float sum = 0;
#pragma unroll
  for (int col = 0; col < kSize / 2; col += 8) {
    const Eight a = load_eight(x + first + col), b = load_eight(y + first + col);
    for (int i = 0; i < 8; ++i) sum = fmaf(a.at[i], b.at[i], sum);
  }
  return sum + __shfl_xor_sync(kWholeWarp, sum, 1);
}

// The warp's 16 queries from first_query on, with what belongs to them.
template <int kSize>
__device__ inline void load_queries(const Head& head, const SharedRows<kSize>& shared, int first_query) {
  const int first = warp() * kWarpTokens, row = first * kRowStride<kSize>;
  Bf16* const out = shared.d_scores + first * shared.score_stride;
  load_rows<kSize>(head.part(0), first_query, head.tokens, head.size, shared.q + row);
  load_rows<kSize>(head.of_width(head.args.d_out), first_query, head.tokens, head.size, shared.d_out + row);
  load_rows<kSize>(head.of_width(head.args.out), first_query, head.tokens, head.size, out);
  __syncwarp();
  const float dot = dot_of_row<kSize>(shared.d_out + row, out);
  const int query = first_query + lane() / 2;
  if (lane() % 2 == 1) return;
  shared.dots[first + lane() / 2] = dot;
  shared.log_sum_exp[first + lane() / 2] = query < head.tokens
                                               ? head.args.log_sum_exp[head.first_of_row + query] * kLog2E
                                               : std::numeric_limits<float>::infinity();
}

// The gradients of a warp's 16 keys: d_k times sqrt(head_size), d_v by the dropout's scale.
template <int kSize>
struct KeyGradients {
  FragmentC d_k[kSize / 8] = {}, d_v[kSize / 8] = {};
};

// Adds those of 16 queries, which are rows from `query` on of the tile, and leaves their d_S in shared memory.
template <int kSize>
__device__ inline void add_queries(const SharedRows<kSize>& shared, int query, const FragmentA (&k)[kSize / 16],
                                   const FragmentA (&v)[kSize / 16], const bool (&is_key)[2], float exponent,
                                   float scale, const KeptOfKeys& kept, KeyGradients<kSize>& gradients) {
  const Bf16 *q = shared.q + query * kRowStride<kSize>, *d_out = shared.d_out + query * kRowStride<kSize>;
  FragmentC p[2], d_scores[2];  // (key, query): first scores and d_out V^T
  multiply_rows<kSize>(k, q, p);
  multiply_rows<kSize>(v, d_out, d_scores);
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const int column = query + tile * 8 + lane() % 4 * 2;
    const float2 log_sum_exp = *reinterpret_cast<const float2*>(shared.log_sum_exp + column);
    const float2 dots = *reinterpret_cast<const float2*>(shared.dots + column);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float &score = p[tile].at[i], &d_score = d_scores[tile].at[i];
      const float dot = i % 2 == 0 ? dots.x : dots.y;
      const float probability =
          is_key[i / 2] ? exp2f(fmaf(score, exponent, i % 2 == 0 ? -log_sum_exp.x : -log_sum_exp.y)) : 0.0f;
      const bool is_kept = kept(tile, i);
      d_score = probability * (is_kept ? fmaf(d_score, scale, -dot) : -dot);
      score = is_kept ? probability : 0.0f;
    }
  }
  const FragmentA rounded = rounded_a(d_scores);
  add_products<kSize>(rounded_a(p), d_out, gradients.d_v);
  add_products<kSize>(rounded, q, gradients.d_k);
  Bf16* const to = shared.d_scores + (warp() * kWarpTokens + lane() / 4) * shared.score_stride + query + lane() % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)  // rows g and g + 8, then 8 columns on
    *reinterpret_cast<unsigned*>(to + i % 2 * 8 * shared.score_stride + i / 2 * 8) = rounded.pairs[i];
}

// The warp's rows of shared.gradients become part `which` of d_qkv, from token first_token on, and add to bias_sums.
template <int kSize>
__device__ inline void store_gradients(const Head& head, const SharedRows<kSize>& shared, int which, int first_token) {
  __syncwarp();
  const float* const rows = shared.gradients + warp() * kWarpTokens * kRowStride<kSize>;
  store_rows<kSize>(rows, head.args.d_qkv, head.first_row + first_token, 3 * head.width,
                    which * head.width + head.column, head.tokens - first_token, head.size);
  for (int col = lane(); col < kSize; col += kWarpSize) {
    float sum = 0;
    for (int row = 0; row < kWarpTokens; ++row) sum += rows[row * kRowStride<kSize> + col];
    shared.bias_sums[(warp() * 3 + which) * kSize + col] += sum;
  }
  __syncwarp();  // the rows have been read
}

// d_Q of the warp's 16 queries over one tile of keys, and, where that is the last, over all. waiting: the warp's place
// for what it has of d_Q (kSize / 8, lanes).
template <int kSize>
__device__ inline void find_d_q(const Head& head, const SharedRows<kSize>& shared, int num_keys, bool is_first,
                                bool is_last, int first_query, float factor, float4* waiting) {
  constexpr int kTiles = kSize < 32 ? kSize / 8 : 4;  // at a time, to spare registers
  float* const rows = shared.gradients + warp() * kWarpTokens * kRowStride<kSize>;
#pragma unroll 1
  for (int first = 0; first < kSize / 8; first += kTiles) {
    FragmentC d_q[kTiles] = {};
    for (int key = 0; key < num_keys; key += 16)
      add_products<kSize>(
          load_a_transposed(shared.d_scores + key * shared.score_stride + warp() * kWarpTokens, shared.score_stride),
          shared.k + key * kRowStride<kSize> + first * 8, d_q);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      float(&at)[4] = d_q[n].at;
      float4* const place = waiting + (first + n) * kWarpSize + lane();
      if (!is_first) {
        const float4 before = *place;
        at[0] += before.x;
        at[1] += before.y;
        at[2] += before.z;
        at[3] += before.w;
      }
      if (!is_last) *place = make_float4(at[0], at[1], at[2], at[3]);
    }
    if (is_last) spread_tiles<kSize>(d_q, factor, factor, rows + first * 8);
  }
  if (is_last) store_gradients<kSize>(head, shared, 0, first_query);
}

template <int kSize>
__global__ void __launch_bounds__(kMaxWarps<kSize>* kWarpSize, kSize <= 32 ? 2 : 1)
    attention_backward_mma_kernel(AttentionBackward args, DropoutFactors dropout, Scratch scratch, Tiles tiles) {
  const SharedRows<kSize> shared(dynamic_shared<Bf16>(), tiles);
  const Index sample = static_cast<Index>(blockIdx.x) / args.heads;
  const int head_idx = static_cast<int>(static_cast<Index>(blockIdx.x) - sample * args.heads);
  const Head head(args, sample, head_idx);
  const KeptKeys keys = kept_keys(dropout, sample, head_idx, head.tokens);
  const float factor = 1.0f / sqrtf(static_cast<float>(head.size));
  const int tile_tokens = tiles.tokens(), first_of_warp = warp() * kWarpTokens;
  const int row_of_warp = first_of_warp * kRowStride<kSize>;
  for (int i = lane(); i < 3 * kSize; i += kWarpSize) shared.bias_sums[warp() * 3 * kSize + i] = 0;

  for (int first_key = 0; first_key < head.tokens; first_key += tile_tokens) {
    const int num_keys = head.tokens - first_key < tile_tokens ? head.tokens - first_key : tile_tokens;
    const int key = first_key + first_of_warp;
    __syncthreads();  // the last keys have been read
    load_rows<kSize>(head.part(1), key, head.tokens, head.size, shared.k + row_of_warp);
    load_rows<kSize>(head.part(2), key, head.tokens, head.size, shared.v + row_of_warp);
    __syncwarp();
    FragmentA k[kSize / 16], v[kSize / 16];
    load_left<kSize>(shared.k + row_of_warp, k);
    load_left<kSize>(shared.v + row_of_warp, v);
    const bool is_key[2] = {key + lane() / 4 < head.tokens, key + lane() / 4 + 8 < head.tokens};

    KeyGradients<kSize> gradients;
    for (int tile = 0; tile < tiles.count; ++tile) {
      const int first_query = tile * tile_tokens;
      const int num_queries = head.tokens - first_query < tile_tokens ? head.tokens - first_query : tile_tokens;
      __syncthreads();  // the last queries and their d_S have been read
      load_queries<kSize>(head, shared, first_query + first_of_warp);
      __syncthreads();
      if (first_of_warp < num_keys)
#pragma unroll 1
        for (int query = 0; query < num_queries; query += 16)
          add_queries<kSize>(shared, query, k, v, is_key, factor * kLog2E, dropout.scale,
                             KeptOfKeys(keys, first_query + query, key), gradients);
      __syncthreads();
      if (first_of_warp < num_queries)
        find_d_q<kSize>(head, shared, num_keys, first_key == 0, first_key + tile_tokens >= head.tokens,
                        first_query + first_of_warp, factor,
                        scratch.d_q + ((static_cast<Index>(blockIdx.x) * tiles.count + tile) * tiles.warps + warp()) *
                                          (kSize / 8 * kWarpSize));
    }
    // The warp's own rows of q and d_out have been read by all, since d_S is made.
    float* const rows = shared.gradients + row_of_warp;
    spread_tiles<kSize>(gradients.d_k, factor, factor, rows);
    store_gradients<kSize>(head, shared, 1, key);
    spread_tiles<kSize>(gradients.d_v, dropout.scale, dropout.scale, rows);
    store_gradients<kSize>(head, shared, 2, key);
  }

  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 3 * kSize; i += static_cast<int>(blockDim.x)) {
    const int which = i / kSize, col = i % kSize;
    if (col >= head.size) continue;
    float sum = 0;
    for (int w = 0; w < tiles.warps; ++w) sum += shared.bias_sums[w * 3 * kSize + i];
    scratch.bias_sums[(sample * 3 + which) * head.width + head.column + col] = sum;
  }
}

}  // namespace

void attention_backward_bf16(const Context& context, const AttentionBackward& args) {
  const Index width = args.heads * args.head_size, bias_sums = args.samples * 3 * width;
  with_head_size(args.head_size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const Tiles tiles = tiles_of<kSize>(args.tokens);
    const Index d_q = tiles.count == 1 ? 0 : args.samples * args.heads * tiles.count * tiles.tokens() * kSize;
    float* const memory = workspace<float>(context, d_q + bias_sums);
    const Scratch scratch{memory + d_q, reinterpret_cast<float4*>(memory)};
    launch(context,
           {.blocks = args.samples * args.heads,
            .threads = tiles.warps * kWarpSize,
            .shared_bytes = SharedRows<kSize>::bytes(tiles)},
           attention_backward_mma_kernel<kSize>, args, factors_of(args.dropout), scratch, tiles);
    add_partial_sums(context, args.samples, 3 * width, scratch.bias_sums, {args.d_bias, static_cast<int>(3 * width)});
  });
}

}  // namespace switchyard::kernels::cuda
