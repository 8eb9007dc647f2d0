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

// That a multiprocessor's registers hold.
template <int kSize>
constexpr int kBlocks = kSize <= 32   ? 3
                        : kSize == 64 ? 2
                                      : 1;

// What blocks need beside the arguments.
struct Scratch {
  float* bias_sums = nullptr;  // (samples, 3, heads, head_size): d_qkv summed over the sample's tokens
  float4* d_q = nullptr;       // (samples, heads, tiles, warps, kSize / 8, lanes), where there is more than one tile
};

// Arrays in shared memory, (tile's tokens, kRowStride) where it is not said otherwise.
template <int kSize>
struct SharedRows {
  Bf16* memory;
  int tokens, score_stride;

  static Index bytes(const Tiles& tiles) {
    const Index tokens = tiles.tokens(), elements = 4 * kRowStride<kSize> + score_stride_of(tiles);
    return tokens * elements * Index{sizeof(Bf16)} + (2 * tokens + tiles.warps * 3 * kSize) * Index{sizeof(float)};
  }
  static __host__ __device__ int score_stride_of(const Tiles& tiles) {
    return (tiles.tokens() > kSize ? tiles.tokens() : kSize) + 8;
  }
  __device__ explicit SharedRows(const Tiles& tiles)
      : memory(dynamic_shared<Bf16>()), tokens(tiles.tokens()), score_stride(score_stride_of(tiles)) {}

  __device__ Bf16* q() const { return memory; }
  __device__ Bf16* d_out() const { return memory + tokens * kRowStride<kSize>; }
  __device__ Bf16* k() const { return memory + tokens * (2 * kRowStride<kSize>); }
  __device__ Bf16* v() const { return memory + tokens * (3 * kRowStride<kSize>); }
  // (tile's keys, score_stride): by queries; before, each warp's rows of `out`
  __device__ Bf16* d_scores() const { return memory + tokens * (4 * kRowStride<kSize>); }
  // (tile's queries), times log2(e); infinite beyond the tokens
  __device__ float* log_sum_exp() const { return reinterpret_cast<float*>(d_scores() + tokens * score_stride); }
  // D (tile's queries)
  __device__ float* dots() const { return log_sum_exp() + tokens; }
  // (warps, 3, kSize): d_qkv summed over the warp's tokens
  __device__ float* bias_sums() const { return dots() + tokens; }
  // The warp's (16, kRowStride), in the place of q and d_out.
  __device__ float* gradients() const {
    return reinterpret_cast<float*>(memory) + warp() * (kWarpTokens * kRowStride<kSize>);
  }
};

// The block's (sample, head) in the arrays.
struct Head {
  const AttentionBackward& args;
  int tokens, size, width, column;
  Index first_row, first_of_row;  // of log_sum_exp's row

  __device__ Head(const AttentionBackward& arguments, Index sample, int head)
      : args(arguments),
        tokens(static_cast<int>(arguments.tokens)),
        size(static_cast<int>(arguments.head_size)),
        width(static_cast<int>(arguments.heads) * size),
        column(head * size),
        first_row(sample * tokens),
        first_of_row((sample * arguments.heads + head) * tokens) {}

  // Of q, k, v: 0, 1, 2.
  __device__ HeadArray part(int which) const {
    return {args.qkv, first_row, 3 * width, which * width + column, args.bias};
  }
  __device__ HeadArray of_width(const Operand& array) const { return {array, first_row, width, column}; }
};

// x and y: (16, kRowStride) each. Lanes 2 r and 2 r + 1 get the product of rows r, each having summed half of it.
template <int kSize>
__device__ inline float dot_of_row(const Bf16* x, const Bf16* y) {
  const int first = lane() / 2 * kRowStride<kSize> + lane() % 2 * (kSize / 2);
  float sum = 0;
#pragma unroll
  for (int col = 0; col < kSize / 2; col += 8) {
    Neighbours<8> a, b;
    load_neighbours(x + first + col, a);
    load_neighbours(y + first + col, b);
    for (int i = 0; i < 8; ++i) sum = fmaf(a.at[i], b.at[i], sum);
  }
  return sum + __shfl_xor_sync(kWholeWarp, sum, 1);
}

// The warp's 16 queries from first_query on, with what belongs to them.
template <int kSize>
__device__ inline void load_queries(const Head& head, const SharedRows<kSize>& shared, int first_query) {
  const int first = warp() * kWarpTokens, row = first * kRowStride<kSize>;
  Bf16* const out = shared.d_scores() + first * shared.score_stride;
  load_rows<kSize>(head.part(0), first_query, head.tokens, head.size, shared.q() + row);
  load_rows<kSize>(head.of_width(head.args.d_out), first_query, head.tokens, head.size, shared.d_out() + row);
  load_rows<kSize>(head.of_width(head.args.out), first_query, head.tokens, head.size, out);
  __syncwarp();
  const float dot = dot_of_row<kSize>(shared.d_out() + row, out);
  const int query = first_query + lane() / 2;
  if (lane() % 2 == 1) return;
  shared.dots()[first + lane() / 2] = dot;
  shared.log_sum_exp()[first + lane() / 2] = query < head.tokens
                                                 ? head.args.log_sum_exp[head.first_of_row + query] * kLog2E
                                                 : std::numeric_limits<float>::infinity();
}

// The warp's 16 keys, and their values, as the left side of products: where registers are enough, in them.
template <int kSize>
using KeyRows = std::conditional_t<kSize <= 32, HeldRows<kSize>, FetchedRows<kSize>>;

// The gradients of a warp's 16 keys: d_k times sqrt(head_size), d_v by the dropout's scale.
template <int kSize>
struct KeyGradients {
  FragmentC d_k[kSize / 8] = {}, d_v[kSize / 8] = {};
};

// Adds those of 16 queries, which are rows from `query` on of the tile, and leaves their d_S in shared memory.
template <int kSize>
__device__ inline void add_queries(const SharedRows<kSize>& shared, int query, const KeyRows<kSize>& k,
                                   const KeyRows<kSize>& v, const bool (&is_key)[2], float exponent, float scale,
                                   const KeptOfKeys& kept, KeyGradients<kSize>& gradients) {
  const Bf16 *q = shared.q() + query * kRowStride<kSize>, *d_out = shared.d_out() + query * kRowStride<kSize>;
  FragmentC p[2], d_scores[2];  // (key, query): first scores and d_out V^T
  multiply_rows<kSize>(k, q, p);
  multiply_rows<kSize>(v, d_out, d_scores);
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) {
    const int column = query + tile * 8 + lane() % 4 * 2;
    const float2 log_sum_exp = *reinterpret_cast<const float2*>(shared.log_sum_exp() + column);
    const float2 dots = *reinterpret_cast<const float2*>(shared.dots() + column);
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
  Bf16* const to =
      shared.d_scores() + (warp() * kWarpTokens + lane() / 4) * shared.score_stride + query + lane() % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)  // rows g and g + 8, then 8 columns on
    *reinterpret_cast<unsigned*>(to + i % 2 * 8 * shared.score_stride + i / 2 * 8) = rounded.pairs[i];
}

// The warp's rows of shared.gradients become part `which` of d_qkv, from token first_token on, and add to bias_sums.
template <int kSize>
__device__ inline void store_gradients(const Head& head, const SharedRows<kSize>& shared, int which, int first_token) {
  __syncwarp();
  const float* const rows = shared.gradients();
  store_rows<kSize>(rows, head.args.d_qkv, head.first_row + first_token, 3 * head.width,
                    which * head.width + head.column, head.tokens - first_token, head.size);
  for (int col = lane(); col < kSize; col += kWarpSize) {
    float sum = 0;
    for (int row = 0; row < kWarpTokens; ++row) sum += rows[row * kRowStride<kSize> + col];
    shared.bias_sums()[(warp() * 3 + which) * kSize + col] += sum;
  }
  __syncwarp();  // the rows have been read
}

template <int kSize>
__device__ inline void store_key_gradients(const Head& head, const SharedRows<kSize>& shared,
                                           const KeyGradients<kSize>& gradients, float factor, float scale,
                                           int first_key) {
#pragma unroll 1
  for (int which = 1; which < 3; ++which) {
    if (which == 1)
      spread_tiles<kSize>(gradients.d_k, factor, factor, shared.gradients());
    else
      spread_tiles<kSize>(gradients.d_v, scale, scale, shared.gradients());
    store_gradients<kSize>(head, shared, which, first_key);
  }
}

// d_Q of the warp's 16 queries over one tile of keys, and, where that is the last, over all. waiting: the warp's place
// for what it has of d_Q (kSize / 8, lanes).
template <int kSize>
__device__ inline void find_d_q(const Head& head, const SharedRows<kSize>& shared, int num_keys, bool is_first,
                                bool is_last, int first_query, float factor, float4* waiting) {
  constexpr int kTiles = kSize < 32 ? kSize / 8 : 4;  // at a time, to spare registers
  float* const rows = shared.gradients();
#pragma unroll 1
  for (int first = 0; first < kSize / 8; first += kTiles) {
    FragmentC d_q[kTiles] = {};
    for (int key = 0; key < num_keys; key += 16)
      add_products<kSize>(
          load_a_transposed(shared.d_scores() + key * shared.score_stride + warp() * kWarpTokens, shared.score_stride),
          shared.k() + key * kRowStride<kSize> + first * 8, d_q);
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

// kOneTile: all tokens are in one tile, and registers need not outlast the loading of another.
template <int kSize, bool kOneTile>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize, kBlocks<kSize>)
    attention_backward_mma_kernel(AttentionBackward args, DropoutFactors dropout, Scratch scratch, Tiles tiles) {
  const SharedRows<kSize> shared(tiles);
  const Index sample = static_cast<Index>(blockIdx.x) / args.heads;
  const int head_idx = static_cast<int>(static_cast<Index>(blockIdx.x) - sample * args.heads);
  const Head head(args, sample, head_idx);
  // With the step read here, in one register more, others would be spilled.
  const KeptKeys keys = kept_keys(dropout, sample, head_idx, head.tokens);
  const float factor = 1.0f / sqrtf(static_cast<float>(head.size));
  const int num_tiles = kOneTile ? 1 : tiles.count, first_of_warp = warp() * kWarpTokens;
  const int row_of_warp = first_of_warp * kRowStride<kSize>;
  for (int i = lane(); i < 3 * kSize; i += kWarpSize) shared.bias_sums()[warp() * 3 * kSize + i] = 0;

  for (int key_tile = 0; key_tile < num_tiles; ++key_tile) {
    const int first_key = key_tile * shared.tokens, key = first_key + first_of_warp;
    const int num_keys = tokens_in_tile(head.tokens, first_key, tiles);
    if (key_tile > 0) __syncthreads();  // the last keys have been read
#pragma unroll 1
    for (int which = 1; which < 3; ++which)
      load_rows<kSize>(head.part(which), key, head.tokens, head.size,
                       (which == 1 ? shared.k() : shared.v()) + row_of_warp);

    KeyGradients<kSize> gradients;
    for (int query_tile = 0; query_tile < num_tiles; ++query_tile) {
      const int first_query = query_tile * shared.tokens;
      const int num_queries = tokens_in_tile(head.tokens, first_query, tiles);
      if (key_tile + query_tile > 0) __syncthreads();  // the last queries and their d_S have been read
      load_queries<kSize>(head, shared, first_query + first_of_warp);
      __syncthreads();
      if (first_of_warp < num_keys) {
        const KeyRows<kSize> k(shared.k() + row_of_warp), v(shared.v() + row_of_warp);
        const bool is_key[2] = {key + lane() / 4 < head.tokens, key + lane() / 4 + 8 < head.tokens};
#pragma unroll 1
        for (int query = 0; query < num_queries; query += 16)
          add_queries<kSize>(shared, query, k, v, is_key, factor * kLog2E, dropout.scale,
                             KeptOfKeys(keys, first_query + query, key), gradients);
      }
      __syncthreads();  // q and d_out have been read, and d_S is whole
      if (query_tile == num_tiles - 1) store_key_gradients<kSize>(head, shared, gradients, factor, dropout.scale, key);
      if (first_of_warp < num_queries) {
        const Index place = (static_cast<Index>(blockIdx.x) * num_tiles + query_tile) * tiles.warps + warp();
        find_d_q<kSize>(head, shared, num_keys, key_tile == 0, key_tile == num_tiles - 1, first_query + first_of_warp,
                        factor, scratch.d_q + place * (kSize / 8 * kWarpSize));
      }
    }
  }

  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 3 * kSize; i += static_cast<int>(blockDim.x)) {
    const int which = i / kSize, col = i % kSize;
    if (col >= head.size) continue;
    float sum = 0;
    for (int w = 0; w < tiles.warps; ++w) sum += shared.bias_sums()[w * 3 * kSize + i];
    scratch.bias_sums[(sample * 3 + which) * head.width + head.column + col] = sum;
  }
}

}  // namespace

void attention_backward_bf16(const Context& context, const AttentionBackward& args) {
  const Index width = args.heads * args.head_size, bias_sums = args.samples * 3 * width;
  with_head_size(args.head_size, [&](auto size) {
    constexpr int kSize = decltype(size)::value;
    const Tiles tiles = tiles_of(args.tokens);
    const Index d_q = tiles.count == 1 ? 0 : args.samples * args.heads * tiles.count * tiles.tokens() * kSize;
    float* const memory = workspace<float>(context, d_q + bias_sums);
    const Scratch scratch{memory + d_q, reinterpret_cast<float4*>(memory)};
    launch(context,
           {.blocks = args.samples * args.heads,
            .threads = tiles.warps * kWarpSize,
            .shared_bytes = SharedRows<kSize>::bytes(tiles)},
           tiles.count == 1 ? attention_backward_mma_kernel<kSize, true> : attention_backward_mma_kernel<kSize, false>,
           args, factors_of(args.dropout), scratch, tiles);
    add_partial_sums(context, args.samples, 3 * width, scratch.bias_sums, {args.d_bias, 3 * width});
  });
}

}  // namespace switchyard::kernels::cuda
