#include <algorithm>

#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

namespace switchyard::kernels::cuda {

namespace {

// The threads that share a row: each keeps kFours times four of its columns in registers. Where a row is one warp's, a
// block has four of them.
template <int kWarps, int kFours>
struct Team {
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kTeams = kWarps == 1 ? 4 : 1;
  static constexpr int kBlockThreads = kTeams * kThreads;
  static constexpr Index kMostCols = Index{4} * kFours * kThreads;

  __device__ static int index() { return static_cast<int>(threadIdx.x) / kThreads; }
  __device__ static int first_col(int j) { return 4 * (static_cast<int>(threadIdx.x) % kThreads + j * kThreads); }
  __device__ static float sum(float x) {
    if constexpr (kWarps == 1)
      return warp_sum(x);
    else
      return block_sum<kThreads>(x);
  }
  __device__ static float2 sums(float x, float y) {
    if constexpr (kWarps == 1)
      return make_float2(warp_sum(x), warp_sum(y));
    else
      return block_sums<kThreads>(make_float2(x, y));
  }
};

// With the smallest team for the width: body(Team). Wide: that for rows of up to 1024 columns.
template <typename Wide, typename Body>
void with_team(const char* operation, Index cols, const Body& body) {
  static_assert(Wide::kMostCols == 1024);
  if (cols <= Team<1, 1>::kMostCols) return body(Team<1, 1>{});
  if (cols <= Team<1, 3>::kMostCols) return body(Team<1, 3>{});
  if (cols <= Wide::kMostCols) return body(Wide{});
  if (cols <= Team<8, 4>::kMostCols) return body(Team<8, 4>{});
  if (cols <= Team<16, 8>::kMostCols) return body(Team<16, 8>{});
  fail_operation(operation + (" on a GPU: rows have at most " + std::to_string(Team<16, 8>::kMostCols)) +
                 " columns, not " + std::to_string(cols));
}

template <typename Team, int kFours, bool kAligned>
__global__ void __launch_bounds__(Team::kBlockThreads) layernorm_kernel(LayerNorm args) {
  const Index row = static_cast<Index>(blockIdx.x) * Team::kTeams + Team::index();
  if (row >= args.rows) return;  // a whole team
  const int cols = static_cast<int>(args.cols);
  const float inverse_cols = 1.0f / static_cast<float>(cols);
  const float* const x = args.x + row * args.x_stride;
  Four values[kFours];
  float sum = 0;
  for (int j = 0; j < kFours; ++j) {
    const int col = Team::first_col(j);
    values[j] = read_four<kAligned>(x + col, cols - col);
    for (int i = 0; i < 4; ++i) sum += values[j].at[i];
  }
  const float mean = __fmul_rn(Team::sum(sum), inverse_cols);
  float squares = 0;
  for (int j = 0; j < kFours; ++j)
    for (int i = 0; i < 4; ++i) {
      float& value = values[j].at[i];
      value = is_inside<kAligned>(i, cols - Team::first_col(j)) ? value - mean : 0.0f;
      squares = fmaf(value, value, squares);
    }
  const float rstd = 1.0f / sqrtf(fmaf(Team::sum(squares), inverse_cols, args.epsilon));
  for (int j = 0; j < kFours; ++j) {
    const int col = Team::first_col(j);
    const Four gamma = read_four<kAligned>(args.gamma + col, cols - col);
    Four out = read_four<kAligned>(args.beta + col, cols - col);
    for (int i = 0; i < 4; ++i) out.at[i] = fmaf(values[j].at[i] * rstd, gamma.at[i], out.at[i]);
    values[j] = out;
  }
  for (Index k = 0; k < args.slots.top_k; ++k) {
    const Index slot = args.slots.slot(row, k);
    if (slot < 0) continue;
    for (int j = 0; j < kFours; ++j) {
      const int col = Team::first_col(j);
      if (args.y.values) write_four<kAligned>(args.y.values + slot * cols + col, values[j], cols - col);
      if (args.y.rounded && col < cols) write_rounded(args.y.rounded + slot * rounded_cols(cols) + col, values[j]);
    }
  }
  if (Team::first_col(0) == 0) {
    args.mean[row] = mean;
    args.rstd[row] = rstd;
  }
}

__device__ void add(Four& sum, const Four& terms) {
  for (int i = 0; i < 4; ++i) sum.at[i] = __fadd_rn(sum.at[i], terms.at[i]);
}

// This thread's columns of the row's d_y; zeros beyond the row.
template <typename Team, int kFours, bool kAligned>
__device__ void read_gradient(const LayerNormBackward& args, Index row, int cols, Four (&d)[kFours]) {
  for (Four& four : d) four = {};
  for (Index k = 0; k < args.slots.top_k; ++k) {
    const Index slot = args.slots.slot(row, k);
    if (slot < 0) continue;
    for (int j = 0; j < kFours; ++j) add(d[j], read_four<kAligned>(args.d_y, slot, cols, Team::first_col(j)));
  }
  if (!args.addend) return;
  for (int j = 0; j < kFours; ++j) {
    const int col = Team::first_col(j);
    add(d[j], read_four<kAligned>(args.addend + row * cols + col, cols - col));
  }
}

constexpr Index kFewestRows = 16;  // of a row block
// As many row blocks as multiprocessors hold at a time.
template <typename Team>
constexpr Index kMostRowBlocks = (Team::kBlockThreads <= 128   ? 5
                                  : Team::kBlockThreads <= 256 ? 2
                                                               : 1) *
                                 kMultiprocessors;
// Whether a thread has registers to keep gamma over all rows, and to ask for d_x early. Warps with rows of their own
// hide the waiting from one another; a team of warps waits together.
template <typename Team>
constexpr bool kReadsAhead = Team::kThreads == 128;

// With xhat = (x - mean) rstd and g = d_y gamma: d_x = rstd (g - mean(g) - xhat mean(g xhat)), means over the row.
// A block has the rows of a row block, team t rows t, t + kTeams, ...; the sums of its teams are added in order.
// partial_sums: (row blocks, 2, cols), d_gamma and d_beta.
template <typename Team, int kFours, bool kAligned>
__global__ void __launch_bounds__(Team::kBlockThreads)
    layernorm_backward_kernel(LayerNormBackward args, Index rows_per_block, float* partial_sums) {
  const int cols = static_cast<int>(args.cols);
  const float inverse_cols = 1.0f / static_cast<float>(cols);
  const Index first_row = static_cast<Index>(blockIdx.x) * rows_per_block, end_of_block = first_row + rows_per_block;
  const Index end = end_of_block < args.rows ? end_of_block : args.rows;
  const auto gamma_at = [&](int j) {
    return read_four<kAligned>(args.gamma + Team::first_col(j), cols - Team::first_col(j));
  };
  Four d_gamma[kFours]{}, d_beta[kFours]{}, kept_gamma[kReadsAhead<Team> ? kFours : 1];
  if constexpr (kReadsAhead<Team>)
    for (int j = 0; j < kFours; ++j) kept_gamma[j] = gamma_at(j);
  for (Index row = first_row + Team::index(); row < end; row += Team::kTeams) {
    const float* const x = args.x + row * args.x_stride;
    float* const d_x = args.d_x + row * args.x_stride;
    const float mean = args.mean[row], rstd = args.rstd[row];
    Four xhat[kFours], d[kFours], out[kFours];
    float sum_g = 0, sum_g_xhat = 0;
    // All that a row needs is asked for before anything is waited for.
    for (int j = 0; j < kFours; ++j) {
      const int col = Team::first_col(j);
      xhat[j] = read_four<kAligned>(x + col, cols - col);
      if constexpr (kReadsAhead<Team>) out[j] = read_four<kAligned>(d_x + col, cols - col);
    }
    read_gradient<Team, kFours, kAligned>(args, row, cols, d);
    for (int j = 0; j < kFours; ++j) {
      const int col = Team::first_col(j);
      const Four gamma = kReadsAhead<Team> ? kept_gamma[j] : gamma_at(j);
      for (int i = 0; i < 4; ++i) {
        // beyond the row d is zero, and what xhat is there is of no account
        xhat[j].at[i] = (xhat[j].at[i] - mean) * rstd;
        const float g = __fmul_rn(d[j].at[i], gamma.at[i]);
        sum_g += g;
        if (is_inside<kAligned>(i, cols - col)) sum_g_xhat = fmaf(g, xhat[j].at[i], sum_g_xhat);
        d_gamma[j].at[i] = fmaf(d[j].at[i], xhat[j].at[i], d_gamma[j].at[i]);
        d_beta[j].at[i] += d[j].at[i];
      }
    }
    const float2 sums_of_row = Team::sums(sum_g, sum_g_xhat);
    const float mean_g = __fmul_rn(sums_of_row.x, inverse_cols), mean_g_xhat = __fmul_rn(sums_of_row.y, inverse_cols);
    for (int j = 0; j < kFours; ++j) {
      const int col = Team::first_col(j);
      const Four gamma = kReadsAhead<Team> ? kept_gamma[j] : gamma_at(j);
      if constexpr (!kReadsAhead<Team>) out[j] = read_four<kAligned>(d_x + col, cols - col);
      for (int i = 0; i < 4; ++i) {
        const float g = __fmul_rn(d[j].at[i], gamma.at[i]);
        out[j].at[i] = fmaf(rstd, fmaf(-xhat[j].at[i], mean_g_xhat, g - mean_g), out[j].at[i]);
      }
      write_four<kAligned>(d_x + col, out[j], cols - col);
    }
  }

  float* const sums = dynamic_shared<float>();  // (2, cols)
  for (int team = 0; team < Team::kTeams; ++team) {
    if (Team::index() == team)
      for (int j = 0; j < kFours; ++j)
        for (int i = 0; i < 4; ++i) {
          const int col = Team::first_col(j) + i;
          if (col >= cols) continue;
          sums[col] = (team == 0 ? 0.0f : sums[col]) + d_gamma[j].at[i];
          sums[cols + col] = (team == 0 ? 0.0f : sums[cols + col]) + d_beta[j].at[i];
        }
    __syncthreads();
  }
  for (int c = static_cast<int>(threadIdx.x); c < 2 * cols; c += Team::kBlockThreads)
    partial_sums[static_cast<Index>(blockIdx.x) * 2 * cols + c] = sums[c];
}

template <int kWarps, int kFours>
void run(const Context& context, const LayerNorm& args, Team<kWarps, kFours>) {
  using T = Team<kWarps, kFours>;
  const bool aligned =
      are_aligned(args.cols, args.gamma, args.beta, args.y.values) && are_aligned(args.x_stride, args.x);
  launch(context, {.blocks = ceil_div(args.rows, T::kTeams), .threads = T::kBlockThreads},
         aligned ? layernorm_kernel<T, kFours, true> : layernorm_kernel<T, kFours, false>, args);
}

template <int kWarps, int kFours>
void run(const Context& context, const LayerNormBackward& args, Team<kWarps, kFours>) {
  using T = Team<kWarps, kFours>;
  const Index rows_per_block = std::max(kFewestRows, ceil_div(args.rows, kMostRowBlocks<T>));
  const Index row_blocks = ceil_div(args.rows, rows_per_block);
  const bool aligned =
      are_aligned(args.cols, args.gamma, args.d_y.values, args.addend) && are_aligned(args.x_stride, args.x, args.d_x);
  float* const partial_sums = workspace<float>(context, row_blocks * 2 * args.cols);
  launch(context,
         {.blocks = row_blocks, .threads = T::kBlockThreads, .shared_bytes = 2 * args.cols * Index{sizeof(float)}},
         aligned ? layernorm_backward_kernel<T, kFours, true> : layernorm_backward_kernel<T, kFours, false>, args,
         rows_per_block, partial_sums);
  add_partial_sums(context, row_blocks, 2 * args.cols, partial_sums, {args.d_gamma, args.cols, args.d_beta});
}

}  // namespace

void layernorm(const Context& context, const LayerNorm& args) {
  with_team<Team<1, 8>>("layernorm", args.cols, [&](auto team) { run(context, args, team); });
}

void layernorm_backward(const Context& context, const LayerNormBackward& args) {
  // one warp would not have the registers
  with_team<Team<4, 2>>("layernorm_backward", args.cols, [&](auto team) { run(context, args, team); });
}

}  // namespace switchyard::kernels::cuda
