// Tokens to slots and back: a warp for each row. Without atomics: whoever needs a sum over choices gathers it.
#include "kernels/cuda/four_floats.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

template <bool kInFours>
__global__ void dispatch_kernel(Dispatch args) {
  const auto cols = static_cast<int>(args.cols);
  for (Index slot = row_of_warp(); slot < args.num_slots; slot += warps_together()) {
    const std::int32_t token = args.assignment_of_slot[slot] / static_cast<std::int32_t>(args.top_k);
    for (int c = 4 * lane(); c < cols; c += kFoursOfWarp) {
      const float4 x = load_four<kInFours>(args.rows, token, cols, c);
      if (args.slots.values) store_four<kInFours>(args.slots.values + slot * args.cols + c, x, cols - c);
      if (args.slots.rounded) write_rounded(args.slots.rounded + slot * rounded_cols(cols) + c, x);
    }
    if (lane() == 0) args.slot_ids[slot] = static_cast<std::int32_t>(args.first_id + static_cast<std::uint32_t>(token));
  }
}

// sum over k, in order, of weights[k] slots[slots_of[k]] at columns col .. col + 3
template <bool kInFours>
__device__ float4 sum_over_choices(const Operand& slots, const std::int32_t* slots_of, const float* weights,
                                   Index top_k, int cols, int col) {
  float4 sum = make_float4(0, 0, 0, 0);
  for (Index k = 0; k < top_k; ++k)
    if (slots_of[k] >= 0)
      add_product(sum, weights ? weights[k] : 1.0f, load_four<kInFours>(slots, slots_of[k], cols, col));
  return sum;
}

template <bool kInFours>
__global__ void combine_kernel(Combine args, DropoutFactors given_dropout) {
  const DropoutFactors dropout = given_dropout.with_step_read();
  const auto cols = static_cast<int>(args.cols);
  for (Index token = row_of_warp(); token < args.tokens; token += warps_together()) {
    const std::int32_t* slots_of = args.slot_of_assignment + token * args.top_k;
    const float* weights = args.weights ? args.weights + token * args.top_k : nullptr;
    for (int c = 4 * lane(); c < cols; c += kFoursOfWarp) {
      const Index place = token * args.cols + c;
      const float4 sum = sum_over_choices<kInFours>(args.slots, slots_of, weights, args.top_k, cols, c);
      float4 y = args.residual ? load_four<kInFours>(args.residual + place, cols - c) : make_float4(0, 0, 0, 0);
      add_product(y, sum, four_factors(dropout, token, c));
      store_four<kInFours>(args.y + place, y, cols - c);
    }
  }
}

template <bool kInFours>
__global__ void combine_backward_kernel(CombineBackward args, DropoutFactors given_dropout) {
  const DropoutFactors dropout = given_dropout.with_step_read();
  const auto cols = static_cast<int>(args.cols);
  for (Index token = row_of_warp(); token < args.tokens; token += warps_together())
    for (Index a = token * args.top_k; a < (token + 1) * args.top_k; ++a) {
      const Index slot = args.slot_of_assignment[a];
      const float weight = args.weights ? args.weights[a] : 1.0f;
      float dot = 0;
      for (int c = 4 * lane(); slot >= 0 && c < cols; c += kFoursOfWarp) {
        const float4 d_y = load_four<kInFours>(args.d_y + token * args.cols + c, cols - c);
        const float4 gradient = product(d_y, four_factors(dropout, token, c));
        const float4 d_slot = product(weight, gradient);
        if (args.d_slots.values) store_four<kInFours>(args.d_slots.values + slot * args.cols + c, d_slot, cols - c);
        if (args.d_slots.rounded) write_rounded(args.d_slots.rounded + slot * rounded_cols(cols) + c, d_slot);
        if (args.d_weights) dot = add_dot(dot, gradient, load_four<kInFours>(args.slots, slot, cols, c));
      }
      if (!args.d_weights) continue;
      dot = warp_sum(dot);
      if (lane() == 0) args.d_weights[a] = dot;
    }
}

}  // namespace

void dispatch(const Context& context, const Dispatch& args) {
  const bool fours = are_aligned(args.cols, args.rows.values, args.slots.values);
  launch(context, warp_for_each(args.num_slots), fours ? dispatch_kernel<true> : dispatch_kernel<false>, args);
}

void combine(const Context& context, const Combine& args) {
  const bool fours = are_aligned(args.cols, args.slots.values, args.residual, args.y);
  launch(context, warp_for_each(args.tokens), fours ? combine_kernel<true> : combine_kernel<false>, args,
         factors_of(args.dropout));
}

void combine_backward(const Context& context, const CombineBackward& args) {
  const bool fours = are_aligned(args.cols, args.d_y, args.slots.values, args.d_slots.values);
  launch(context, warp_for_each(args.tokens), fours ? combine_backward_kernel<true> : combine_backward_kernel<false>,
         args, factors_of(args.dropout));
}

}  // namespace switchyard::kernels::cuda
