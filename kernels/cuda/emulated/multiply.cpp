// In place of cuBLASLt: every element is one fp32 sum along k, in order.
#include "kernels/cuda/multiply.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/rounded.cuh"

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace switchyard::kernels::cuda {

namespace {

void demand(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "emulated multiply: %s\n", what);
  std::abort();
}

bool aligned(const void* pointer, Index ld, Index element_bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && ld * element_bytes % 16 == 0;
}

void check_arguments(const Product& p) {
  const Index bytes = p.bf16 ? 2 : 4;
  demand(!p.bf16 || !p.tf32, "bf16 and TF32 at once");
  demand(p.m > 0 && p.n > 0 && p.k > 0 && p.batch > 0, "empty product");
  demand(p.lda >= (p.transpose_a ? p.m : p.k) && p.ldb >= (p.transpose_b ? p.k : p.n) && p.ldc >= p.n, "short rows");
  demand(aligned(p.a, p.lda, bytes) && aligned(p.b, p.ldb, bytes), "operand is not aligned");
  demand(p.batch == 1 || (p.stride_a * bytes % 16 == 0 && p.stride_b * bytes % 16 == 0),
         "operands of a batch are not aligned");
  demand(!p.c != !p.c_rounded, "not one C");
  demand(p.ldc % 4 != 0 || aligned(p.c, p.ldc, 4), "C is not aligned");
  demand(!p.c_rounded || (p.bf16 && aligned(p.c_rounded, p.ldc, 2)), "rounded C is not aligned, or of fp32 operands");
  demand(!p.c_rounded || (!p.addend && p.batch == 1), "rounded C with an addend or in a batch");
  demand(p.ldc % 4 != 0 || aligned(p.addend, p.ldc, 4), "addend is not aligned");
  demand(p.batch == 1 || !p.addend, "addend in a batch");
  demand(!p.bias || (p.batch == 1 && !p.addend), "bias in a batch or with an addend");
  demand(aligned(p.bias, 0, 0), "bias is not aligned");
  demand(p.batch == 1 || p.stride_c >= p.m * p.ldc, "results of a batch overlap");
}

// What cuBLASLt would be asked is a product, too, of little more rows.
void check_question(const Product& p) {
  const Product asked = with_rows_in_steps(p);
  check_arguments(asked);
  demand(asked.m >= p.m && asked.k >= p.k && asked.m - p.m <= p.m / 8 && asked.k - p.k <= p.k / 8, "another product");
}

// Upwards or downwards: which, NVIDIA does not promise.
float without_13_bits(float x) { return __uint_as_float(__float_as_uint(x) & ~0x1fffu); }

float element(bool bf16, const void* array, Index place) {
  return bf16 ? first_of_pair(static_cast<const Bf16*>(array)[place].bits) : static_cast<const float*>(array)[place];
}

float value(const Product& p, const void* operand, Index place) {
  const float x = element(p.bf16, operand, place);
  return p.tf32 ? without_13_bits(x) : x;
}

void multiply_one(const Product& p, Index s) {
  std::vector<float> b(static_cast<std::size_t>(p.k * p.n)), row(static_cast<std::size_t>(p.n));
  for (Index l = 0; l < p.k; ++l)
    for (Index j = 0; j < p.n; ++j)
      b[static_cast<std::size_t>(l * p.n + j)] =
          value(p, p.b, s * p.stride_b + (p.transpose_b ? j * p.ldb + l : l * p.ldb + j));
  for (Index i = 0; i < p.m; ++i) {
    std::fill(row.begin(), row.end(), 0.0f);
    for (Index l = 0; l < p.k; ++l) {
      const float a = value(p, p.a, s * p.stride_a + (p.transpose_a ? l * p.lda + i : i * p.lda + l));
      const float* b_row = b.data() + l * p.n;
      for (Index j = 0; j < p.n; ++j) row[static_cast<std::size_t>(j)] += a * b_row[j];
    }
    for (Index j = 0; j < p.n; ++j) {
      const Index place = s * p.stride_c + i * p.ldc + j;
      float sum = row[static_cast<std::size_t>(j)];
      if (p.bias) sum += element(p.c_rounded != nullptr, p.bias, j);
      if (p.c_rounded)
        write_rounded(p.c_rounded + place, sum);
      else
        p.c[place] = p.addend ? p.addend[place] + sum : sum;
    }
  }
}

}  // namespace

void multiply(const Context& context, const Product& product, void*) {
  check_arguments(product);
  check_question(product);
  emulated::give(static_cast<cudaStream_t>(context.stream), [product] {
    for (Index s = 0; s < product.batch; ++s) multiply_one(product, s);
  });
}

std::string product_library() { return "emulated matrix products"; }

std::string product_algorithms() { return "emulated: sums along k in order\n"; }

}  // namespace switchyard::kernels::cuda
