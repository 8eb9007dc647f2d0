#include "kernels/api/gemm.hpp"

#include <algorithm>
#include <atomic>

#include <dnnl.h>
#include <omp.h>

#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

// oneDNN runs on the calling thread alone: the number of threads is a property of each thread.
void keep_onednn_on_this_thread() {
  thread_local bool done = false;
  if (done) return;
  omp_set_num_threads(1);
  done = true;
}

// Rows of C in a block. oneDNN gives a row other bits in another number of rows, so this is a function of the shape.
Index rows_per_block(const Gemm& product) {
  constexpr Index kMaxBlocks = 8;
  constexpr double kMinFlops = 2e6;
  const double flops =
      2.0 * static_cast<double>(product.m) * static_cast<double>(product.n) * static_cast<double>(product.k);
  const Index num_blocks = std::clamp(static_cast<Index>(flops / kMinFlops), Index{1}, kMaxBlocks);
  return round_up(ceil_div(product.m, num_blocks), 16);
}

// The rows [first_row, end_row) of C.
dnnl_status_t multiply_rows(const Gemm& product, Index first_row, Index end_row) {
  float* c = product.c + first_row * product.ldc;
  if (product.k == 0) {
    if (product.beta == 0)
      for (Index row = first_row; row < end_row; ++row, c += product.ldc) std::fill_n(c, product.n, 0.0f);
    return dnnl_success;
  }
  const float* a = product.a + first_row * (product.transpose_a ? 1 : product.lda);
  return dnnl_sgemm(product.transpose_a ? 'T' : 'N', product.transpose_b ? 'T' : 'N', end_row - first_row, product.n,
                    product.k, 1.0f, a, product.lda, product.b, product.ldb, product.beta, c, product.ldc);
}

}  // namespace

void gemm(const Context& context, std::span<const Gemm> products) {
  thread_local Scratch<Index> scratch;
  const auto num_products = static_cast<Index>(products.size());
  Index* first_block = scratch.get(num_products + 1);  // of each product, in the list of all blocks
  first_block[0] = 0;
  for (Index p = 0; p < num_products; ++p) {
    const Gemm& product = products[static_cast<std::size_t>(p)];
    const bool empty = product.m == 0 || product.n == 0;
    first_block[p + 1] = first_block[p] + (empty ? 0 : ceil_div(product.m, rows_per_block(product)));
  }
  std::atomic<int> status{dnnl_success};
  context.threads->parallel_for(first_block[num_products], [&](Index block_idx) {
    keep_onednn_on_this_thread();
    const Index p = std::upper_bound(first_block, first_block + num_products + 1, block_idx) - first_block - 1;
    const Gemm& product = products[static_cast<std::size_t>(p)];
    const Index rows = rows_per_block(product), first_row = (block_idx - first_block[p]) * rows;
    const dnnl_status_t own = multiply_rows(product, first_row, std::min(product.m, first_row + rows));
    if (own != dnnl_success) status = own;
  });
  if (status != dnnl_success)
    fail("gemm: oneDNN refused a matrix product (status {}); is libdnnl the version that this program was built with?",
         status.load());
}

}  // namespace switchyard::kernels::cpu
