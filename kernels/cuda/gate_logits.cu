// A gate's products while experts are few: x is read once for each chunk of at most 8 experts, by whole rows; what
// belongs to the chunk's experts stays in registers.
#include "kernels/api/gate_logits.hpp"

#include <algorithm>
#include <string>

#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/four_floats.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// Sums over the lanes, each with the bits of warp_sum(): a lane returns that of value lane() / (32 / kValues). At each
// step a lane hands on half of the values that it still has.
template <int kValues>
__device__ float warp_sums(float (&values)[kValues]) {
  static_assert(kValues <= kWarpSize && (kValues & (kValues - 1)) == 0);
  int mask = kWarpSize / 2;
#pragma unroll
  for (int half = kValues / 2; half > 0; half /= 2) {
    const bool upper = (lane() & mask) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float given = upper ? values[i] : values[half + i], kept = upper ? values[half + i] : values[i];
      values[i] = kept + __shfl_xor_sync(kWholeWarp, given, mask);
    }
    mask /= 2;
  }
  for (; mask > 0; mask /= 2) values[0] += __shfl_xor_sync(kWholeWarp, values[0], mask);
  return values[0];
}

constexpr int kRowsOfWarp = 4;

// A warp has four rows, a lane of it the columns of four_floats.cuh.
template <int kExperts, bool kAligned>
__global__ void __launch_bounds__(256) gate_logits_kernel(GateLogits args) {
  const int cols = static_cast<int>(args.width), num_experts = static_cast<int>(args.num_experts);
  for (Index first = row_of_warp() * kRowsOfWarp; first < args.tokens; first += warps_together() * kRowsOfWarp)
    for (int first_expert = 0; first_expert < num_experts; first_expert += kExperts) {
      float sums[kRowsOfWarp * kExperts] = {};
      for (int c = 4 * lane(); c < cols; c += kFoursOfWarp) {
        float4 x[kRowsOfWarp];
#pragma unroll
        for (int r = 0; r < kRowsOfWarp; ++r)  // the last row once more where there is none
          x[r] = load_four<kAligned>(args.x, first + r < args.tokens ? first + r : args.tokens - 1, cols, c);
#pragma unroll
        for (int e = 0; e < kExperts; ++e) {
          if (first_expert + e >= num_experts) continue;
          const float4 w = load_four<kAligned>(args.weight + Index{first_expert + e} * cols + c, cols - c);
#pragma unroll
          for (int r = 0; r < kRowsOfWarp; ++r) sums[r * kExperts + e] = add_dot(sums[r * kExperts + e], x[r], w);
        }
      }
      const float sum = warp_sums(sums);
      constexpr int kLanes = kWarpSize / (kRowsOfWarp * kExperts);
      const int value = lane() / kLanes, expert = first_expert + value % kExperts;
      const Index row = first + value / kExperts;
      if (lane() % kLanes == 0 && row < args.tokens && expert < num_experts)
        args.logits[row * num_experts + expert] = sum;
    }
}

// A block of threads takes `fours` times four columns of `rows_at_once` rows at a time, and so a row block.
struct GateCut {
  Index rows_per_block = 0, row_blocks = 0;
  int tiles = 0, fours = 0, rows_at_once = 0;
};

constexpr int kThreads = 256, kRowsOfThread = 4;

GateCut cut_for_gate(Index rows, Index cols) {
  constexpr Index kMostRowBlocks = 2 * kMultiprocessors, kFewestRows = 16;
  const Index fours = ceil_div(cols, 4), tiles = ceil_div(fours, kThreads);
  const Index fours_of_tile = ceil_div(fours, tiles), rows_at_once = kThreads / fours_of_tile;
  const Index rows_per_block = std::max({kFewestRows, rows_at_once, ceil_div(rows, kMostRowBlocks)});
  return {rows_per_block, ceil_div(rows, rows_per_block), static_cast<int>(tiles), static_cast<int>(fours_of_tile),
          static_cast<int>(rows_at_once)};
}

// Experts first_expert .. first_expert + kExperts - 1 at columns col .. col + 3, of rows row, row + step, ... < end:
// d_x is written, with what the experts before gave it, and d_w summed.
template <int kExperts, bool kAligned>
__device__ void pass_rows(const GateLogitsBackward& args, int first_expert, int col, Index row, Index end, int step,
                          float4 (&d_w)[kExperts]) {
  const int cols = static_cast<int>(args.width), num_experts = static_cast<int>(args.num_experts);
  const bool adds = args.adds_to_d_x || first_expert > 0;
  float4 w[kExperts];
#pragma unroll
  for (int e = 0; e < kExperts; ++e)
    w[e] = first_expert + e < num_experts
               ? load_four<kAligned>(args.weight + Index{first_expert + e} * cols + col, cols - col)
               : make_float4(0, 0, 0, 0);
  for (; row < end; row += kRowsOfThread * step) {
    float4 x[kRowsOfThread];
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r)
      if (row + r * step < end) x[r] = load_four<kAligned>(args.x, row + r * step, cols, col);
#pragma unroll
    for (int r = 0; r < kRowsOfThread; ++r) {
      const Index at = row + r * step;
      if (at >= end) continue;
      float* const d_x = args.d_x ? args.d_x + at * cols + col : nullptr;
      float4 sum = d_x && adds ? load_four<kAligned>(d_x, cols - col) : make_float4(0, 0, 0, 0);
#pragma unroll
      for (int e = 0; e < kExperts; ++e) {
        if (first_expert + e >= num_experts) continue;
        const float d = args.d_logits[at * num_experts + first_expert + e];
        add_product(sum, d, w[e]);
        add_product(d_w[e], d, x[r]);
      }
      if (d_x) store_four<kAligned>(d_x, sum, cols - col);
    }
  }
}

// partial_sums: (row blocks, num_experts, width). Within a block the rows that are summed at once are added in order.
template <int kExperts, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
    gate_logits_backward_kernel(GateLogitsBackward args, GateCut cut, float* partial_sums) {
  float4* const sums = dynamic_shared<float4>();  // (kExperts, rows_at_once, fours)
  const int cols = static_cast<int>(args.width), num_experts = static_cast<int>(args.num_experts);
  const int thread = static_cast<int>(threadIdx.x), place = thread / cut.fours;
  const int first_of_tile = static_cast<int>(blockIdx.x) % cut.tiles * 4 * cut.fours;
  const int col = first_of_tile + thread % cut.fours * 4, places = cut.rows_at_once * cut.fours;
  const Index row_block = static_cast<Index>(blockIdx.x) / cut.tiles, first_row = row_block * cut.rows_per_block;
  const Index end_of_block = first_row + cut.rows_per_block,
              end = end_of_block < args.tokens ? end_of_block : args.tokens;
  for (int first_expert = 0; first_expert < num_experts; first_expert += kExperts) {
    float4 d_w[kExperts] = {};
    if (place < cut.rows_at_once && col < cols)
      pass_rows<kExperts, kAligned>(args, first_expert, col, first_row + place, end, cut.rows_at_once, d_w);
    if (first_expert > 0) __syncthreads();  // the sums of the experts before have been read
    if (place < cut.rows_at_once)
#pragma unroll
      for (int e = 0; e < kExperts; ++e) sums[e * places + thread] = d_w[e];
    __syncthreads();
    for (int i = thread; i < kExperts * cut.fours; i += kThreads) {
      const int expert = first_expert + i / cut.fours, four = i % cut.fours, first = first_of_tile + 4 * four;
      if (expert >= num_experts || first >= cols) continue;
      float4 sum = make_float4(0, 0, 0, 0);
      for (int p = 0; p < cut.rows_at_once; ++p)
        add_product(sum, 1.0f, sums[i / cut.fours * places + p * cut.fours + four]);
      store_four<kAligned>(partial_sums + (row_block * num_experts + expert) * cols + first, sum, cols - first);
    }
  }
}

// Whether the kernels above are to do it, or gemm().
bool has_few_experts(const char* operation, Index num_experts, const Operand& x) {
  if (num_experts <= kMostExpertsOfRounded) return true;
  if (x.rounded)
    fail_operation(operation +
                   (": x is rounded to bf16, which goes with at most " + std::to_string(kMostExpertsOfRounded)) +
                   " experts, and there are " + std::to_string(num_experts) + ": give it in fp32");
  return false;
}

// body.operator()<kExperts>() with the size of a chunk
template <typename Body>
void with_chunk_of(Index num_experts, const Body& body) {
  if (num_experts <= 4) return body.template operator()<4>();
  body.template operator()<8>();
}

}  // namespace

void gate_logits(const Context& context, const GateLogits& args) {
  if (!has_few_experts("gate_logits", args.num_experts, args.x)) {
    const Gemm product = args.product();
    return gemm(context, {&product, 1});
  }
  const bool aligned = are_aligned(args.width, args.x.values, args.weight);
  with_chunk_of(args.num_experts, [&]<int kExperts>() {
    launch(context, warp_for_each(ceil_div(args.tokens, kRowsOfWarp)),
           aligned ? gate_logits_kernel<kExperts, true> : gate_logits_kernel<kExperts, false>, args);
  });
}

void gate_logits_backward(const Context& context, const GateLogitsBackward& args) {
  if (!has_few_experts("gate_logits_backward", args.num_experts, args.x)) {
    const Gemm products[] = {args.weight_product(), args.input_product()};
    return gemm(context, {products, args.d_x ? std::size_t{2} : std::size_t{1}});
  }
  const GateCut cut = cut_for_gate(args.tokens, args.width);
  const Index size = args.num_experts * args.width;
  const bool aligned = are_aligned(args.width, args.x.values, args.weight, args.d_x);
  float* const partial_sums = workspace<float>(context, cut.row_blocks * size);
  with_chunk_of(args.num_experts, [&]<int kExperts>() {
    launch(context,
           {.blocks = cut.row_blocks * cut.tiles,
            .threads = kThreads,
            .shared_bytes = Index{kExperts} * cut.rows_at_once * cut.fours * Index{sizeof(float4)}},
           aligned ? gate_logits_backward_kernel<kExperts, true> : gate_logits_backward_kernel<kExperts, false>, args,
           cut, partial_sums);
  });
  add_partial_sums(context, cut.row_blocks, size, partial_sums, {args.d_weight, size, nullptr});
}

}  // namespace switchyard::kernels::cuda
