#include "kernels/cuda/column_pass.cuh"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

struct PerturbPass {
  PerturbInput args;
  DropoutFactors dropout;

  template <typename Octet>
  __device__ Eight constants(const Octet&) const {
    return {};
  }
  template <typename Octet>
  __device__ Eight row(Index row, const Octet& octet, const Eight&) const {
    Eight x = octet.load(args.x + row * args.cols);
    Eight factors = factors_of_octet(dropout, row, octet);
    if (args.jitter != 0) multiply_by_jitter(row, octet.first / 8, factors);
    for (int i = 0; i < 8; ++i) x.at[i] *= factors.at[i];
    octet.store(args.y + row * args.cols, x);
    return {};
  }

  // 2 u - 1 = bits / 32768 - 65535 / 65536, exactly
  __device__ void multiply_by_jitter(Index row, int block, Eight& factors) const {
    const auto words = random_words(args.jitter_key, args.first_row + static_cast<std::uint32_t>(row),
                                    static_cast<std::uint32_t>(block));
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t word = words[static_cast<std::size_t>(i / 2)];
      const auto bits = static_cast<float>(i % 2 == 0 ? word & 0xffffu : word >> 16);
      factors.at[i] *= fmaf(args.jitter, fmaf(bits, 0x1p-15f, -65535 * 0x1p-16f), 1.0f);
    }
  }
};

}  // namespace

void perturb_input(const Context& context, const PerturbInput& args) {
  for_columns(context, args.rows, args.cols, are_aligned(args.cols, args.x, args.y),
              PerturbPass{args, factors_of(args.dropout)});
}

}  // namespace switchyard::kernels::cuda
