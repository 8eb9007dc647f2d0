// Three launches: scores become integers in the same order, expert by expert; a block for each expert finds the cut by
// a radix select; every token looks on which side of the cuts it is.
#include "kernels/cuda/lane_groups.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;

// An expert takes the tokens whose order is above `order`, and of those equal to it the ones before `end_equal`.
struct Cut {
  std::uint32_t order;
  std::int32_t end_equal;
};

struct Orders {
  Index stride = 0;                 // tokens, rounded up to 4
  std::uint32_t* values = nullptr;  // (num_experts, stride)
  Cut* cuts = nullptr;              // (num_experts)

  __device__ const std::uint32_t* of(Index expert) const { return values + expert * stride; }
};

__global__ void orders_kernel(ExpertChoice args, Orders orders) {
  for (Index i = global_thread(); i < args.num_experts * args.tokens; i += num_threads()) {
    const Index expert = i / args.tokens, token = i - expert * args.tokens;
    orders.values[expert * orders.stride + token] = order_of(args.scores[token * args.num_experts + expert]);
  }
}

// Calls visit(token, order, there) with consecutive tokens for the lanes of a warp, `there` saying whether there is
// such a token, from `first` to `end`, which are multiples of 4, for lanes in step.
template <typename Visit>
__device__ void for_tokens(const std::uint32_t* orders, int first, int end, int step, int tokens, const Visit& visit) {
  for (int begin = first; begin < end; begin += step) {
    const int token = begin + 4 * lane();
    const uint4 four = token < end ? *reinterpret_cast<const uint4*>(orders + token) : make_uint4(0, 0, 0, 0);
    const int limit = end < tokens ? end : tokens;
    visit(token, four.x, token < limit);
    visit(token + 1, four.y, token + 1 < limit);
    visit(token + 2, four.z, token + 2 < limit);
    visit(token + 3, four.w, token + 3 < limit);
  }
}

// counts[digit] of the orders that agree with `prefix` above the digit at `shift`: warps count apart, without atomics.
__device__ void count_digits(const std::uint32_t* orders, int tokens, std::uint32_t prefix, int shift,
                             std::int32_t (*of_warp)[kDigits], std::int32_t* counts) {
  for (int digit = lane(); digit < kDigits; digit += kWarpSize) of_warp[warp()][digit] = 0;
  __syncwarp();
  const unsigned lanes_before = (1u << lane()) - 1;
  const std::uint32_t above = shift + kDigitBits == 32 ? 0 : ~0u << (shift + kDigitBits);
  for_tokens(orders, 4 * kWarpSize * warp(), (tokens + 3) / 4 * 4, 4 * kThreads, tokens,
             [&](int, std::uint32_t order, bool there) {
               const bool counted = there && ((order ^ prefix) & above) == 0;
               const int digit = counted ? static_cast<int>(order >> shift & (kDigits - 1)) : -1;
               const unsigned same = __match_any_sync(kWholeWarp, digit);
               if (counted && (same & lanes_before) == 0) of_warp[warp()][digit] += __popc(same);
               __syncwarp();
             });
  __syncthreads();
  if (threadIdx.x < kDigits) {
    std::int32_t sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += of_warp[w][threadIdx.x];
    counts[threadIdx.x] = sum;
  }
  __syncthreads();
}

// A number of each lane, added up over the lanes before it.
__device__ std::int32_t sum_before(std::int32_t own) {
  std::int32_t sum = own;
  for (int step = 1; step < kWarpSize; step *= 2) {
    const std::int32_t before = __shfl_up_sync(kWholeWarp, sum, static_cast<unsigned>(step));
    if (lane() >= step) sum += before;
  }
  return sum - own;
}

// By one warp, from the largest digit down: that of the `wanted`-th largest; wanted becomes its number within the
// digit.
__device__ void find_digit(const std::int32_t* counts, std::uint32_t* digit, std::int32_t* wanted) {
  constexpr int kOfLane = kDigits / kWarpSize;
  const int first = kDigits - 1 - lane() * kOfLane;
  const std::int32_t left = *wanted;
  __syncwarp();
  std::int32_t own = 0;
  for (int i = 0; i < kOfLane; ++i) own += counts[first - i];
  std::int32_t larger = sum_before(own);
  if (larger >= left || larger + own < left) return;  // one lane stays
  int found = first;
  for (; larger + counts[found] < left; --found) larger += counts[found];
  *digit = static_cast<std::uint32_t>(found);
  *wanted = left - larger;
}

// The token after the `wanted`-th of those equal to `order`, in order: warps take consecutive tokens.
__device__ void find_end(const std::uint32_t* orders, int tokens, std::uint32_t order, std::int32_t wanted,
                         std::int32_t* counts, std::int32_t* end_equal) {
  const int of_warp = static_cast<int>(round_up(ceil_div(tokens, kWarps), 4 * kWarpSize));
  const int padded = (tokens + 3) / 4 * 4, first = warp() * of_warp;
  const int end = first + of_warp < padded ? first + of_warp : padded;
  std::int32_t own = 0;
  for_tokens(orders, first, end, 4 * kWarpSize, tokens,
             [&](int, std::uint32_t o, bool there) { own += there && o == order; });
  const std::int32_t before_lane = sum_before(own);
  if (lane() == kWarpSize - 1) counts[warp()] = before_lane + own;
  __syncthreads();
  std::int32_t before = 0;
  for (int w = 0; w < warp(); ++w) before += counts[w];
  if (before >= wanted || before + counts[warp()] < wanted) return;  // one warp stays
  for (int token = first;; token += kWarpSize) {
    unsigned equal = __ballot_sync(kWholeWarp, token + lane() < tokens && orders[token + lane()] == order);
    const int count = __popc(equal);
    if (before + count < wanted) {
      before += count;
      continue;
    }
    for (; ++before < wanted;) equal &= equal - 1;
    if (lane() == 0) *end_equal = token + __ffs(static_cast<int>(equal));
    return;
  }
}

__global__ void __launch_bounds__(kThreads) find_cuts_kernel(ExpertChoice args, Orders orders) {
  __shared__ std::int32_t of_warp[kWarps][kDigits];
  __shared__ std::int32_t counts[kDigits];
  __shared__ std::uint32_t digit;
  __shared__ std::int32_t wanted;
  const Index expert = blockIdx.x;
  const std::uint32_t* own = orders.of(expert);
  const auto tokens = static_cast<int>(args.tokens);
  if (threadIdx.x == 0) wanted = static_cast<std::int32_t>(args.capacity);
  std::uint32_t order = 0;
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    count_digits(own, tokens, order, shift, of_warp, counts);
    if (warp() == 0) find_digit(counts, &digit, &wanted);
    __syncthreads();
    order |= digit << shift;
  }
  find_end(own, tokens, order, wanted, counts, &orders.cuts[expert].end_equal);
  if (threadIdx.x == 0) orders.cuts[expert].order = order;
}

__global__ void take_kernel(ExpertChoice args, Orders orders) {
  for (Index i = global_thread(); i < args.tokens * args.num_experts; i += num_threads()) {
    const Index token = i / args.num_experts, expert = i - token * args.num_experts;
    const Cut cut = args.capacity > 0 ? orders.cuts[expert] : Cut{~0u, 0};
    const float score = args.scores[i];
    const std::uint32_t order = order_of(score);
    const bool takes = order > cut.order || (order == cut.order && token < cut.end_equal);
    args.experts[i] = takes ? static_cast<std::int32_t>(expert) : -1;
    args.weights[i] = takes ? score : 0.0f;
  }
}

}  // namespace

void expert_choice(const Context& context, const ExpertChoice& args) {
  if (args.capacity < 0 || args.capacity > args.tokens)
    fail_operation("expert_choice: an expert cannot take " + std::to_string(args.capacity) + " of " +
                   std::to_string(args.tokens) + " tokens: a router is wrong.");
  const Index size = args.tokens * args.num_experts;
  Orders orders{.stride = round_up(args.tokens, 4)};
  if (args.capacity > 0) {
    const Index num_orders = args.num_experts * orders.stride;
    orders.values = workspace<std::uint32_t>(context, num_orders + 2 * args.num_experts);
    orders.cuts = reinterpret_cast<Cut*>(orders.values + num_orders);
    launch(context, grid_for(size), orders_kernel, args, orders);
    launch(context, {.blocks = args.num_experts, .threads = kThreads}, find_cuts_kernel, args, orders);
  }
  launch(context, grid_for(size), take_kernel, args, orders);
}

}  // namespace switchyard::kernels::cuda
