#include "kernels/cpu/dropout_scales.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/row_blocks.hpp"

namespace switchyard::kernels::cpu {

void perturb_input(const Context& context, const PerturbInput& args) {
  for_rows(context, args.rows, [&](Index row) {
    alignas(64) float jitter_factors[kDropoutChunk + kDropoutSlack];
    for_dropout_chunks(args.dropout, row, args.cols, [&](Index first_col, Index end_col, const float* scales) {
      const float* jitters = kOnes.data();
      if (args.jitter != 0) {
        jitter_scales(args.jitter_key, args.jitter, args.first_row + static_cast<std::uint32_t>(row), 1,
                      static_cast<std::uint32_t>(first_col / kColumnsPerBlock),
                      ceil_div(end_col - first_col, kColumnsPerBlock), jitter_factors);
        jitters = jitter_factors;
      }
      const Index first = row * args.cols + first_col, size = end_col - first_col;
#pragma omp simd
      for (Index i = 0; i < size; ++i) args.y[first + i] = args.x[first + i] * (jitters[i] * scales[i]);
    });
  });
}

}  // namespace switchyard::kernels::cpu
