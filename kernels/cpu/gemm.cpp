#include "kernels/api/gemm.hpp"

#include <algorithm>
#include <atomic>

#include <dnnl.h>
#include <malloc.h>
#include <omp.h>

#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/transpose.hpp"

namespace switchyard::kernels::cpu {

namespace {

// oneDNN is to run on the calling thread alone: its number of threads is a property of each thread. It also allocates
// and frees buffers in every product: the pages are to stay with this process.
void prepare_thread() {
  thread_local bool done = false;
  if (done) return;
  omp_set_num_threads(1);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that glibc takes
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  done = true;
}

// An operand that is transposed into scratch before its product: read (rows, cols), written (cols, rows), rows of the
// copy `stride` elements apart.
struct Copy {
  bool is_b = false;  // else A
  const float* from = nullptr;
  Index rows = 0, cols = 0, from_stride = 0;
  float* to = nullptr;
  Index stride = 0;
  Index num_blocks = 0;
};
constexpr Index kCopyBlockRows = 4 * kTransposeTile;

// What runs: the products as oneDNN is to see them, each cut into blocks of rows of C.
struct Plan {
  Gemm product;
  Copy copy;
  Index block_rows = 0, num_blocks = 0;
};

// oneDNN packs a transposed B anew in every call, so in every block: one transposition for all of them costs less
// (65 -> 100 GFLOP/s a core at k = 1024). A transposed A it packs well, but for rows 4 KiB apart, which share a few
// sets of the caches (80 -> 92).
bool worth_transposing_b(const Gemm& g) { return g.transpose_b && g.m >= 48; }
bool worth_transposing_a(const Gemm& g) { return g.transpose_a && !g.transpose_b && g.n >= 48 && g.lda % 1024 == 0; }

// oneDNN gives a row of C other bits in another number of rows, so the cut is a function of the shape alone.
Index rows_in_block(const Gemm& g) {
  constexpr Index kMaxBlocks = 8, kMinRows = 64;
  constexpr double kMinFlops = 2e6;  // some 20 microseconds
  const double flops = 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  const Index num_blocks =
      std::clamp(std::min(static_cast<Index>(flops / kMinFlops), ceil_div(g.m, kMinRows)), Index{1}, kMaxBlocks);
  return round_up(ceil_div(g.m, num_blocks), 16);
}

Plan make_plan(const Gemm& product) {
  Plan plan{.product = product, .copy = {}};
  Gemm& g = plan.product;
  if (g.m == 0 || g.n == 0) return plan;
  plan.block_rows = rows_in_block(g);
  plan.num_blocks = ceil_div(g.m, plan.block_rows);
  if (g.k == 0) return plan;
  Copy& copy = plan.copy;
  if (worth_transposing_b(g)) copy = {.is_b = true, .from = g.b, .rows = g.n, .cols = g.k, .from_stride = g.ldb};
  if (worth_transposing_a(g)) copy = {.is_b = false, .from = g.a, .rows = g.k, .cols = g.m, .from_stride = g.lda};
  copy.stride = round_up(copy.rows, kTransposeTile) | kTransposeTile;  // never a large power of two
  copy.num_blocks = ceil_div(copy.rows, kCopyBlockRows);
  return plan;
}

void use_copy(Plan& plan, float* to) {
  Gemm& g = plan.product;
  plan.copy.to = to;
  (plan.copy.is_b ? g.b : g.a) = to;
  (plan.copy.is_b ? g.ldb : g.lda) = plan.copy.stride;
  (plan.copy.is_b ? g.transpose_b : g.transpose_a) = false;
}

void transpose_block(const Copy& copy, Index block_idx) {
  const Index first_row = block_idx * kCopyBlockRows;
  transpose(std::min(kCopyBlockRows, copy.rows - first_row), copy.cols, copy.from + first_row * copy.from_stride,
            copy.from_stride, copy.to + first_row, copy.stride);
}

dnnl_status_t multiply_block(const Plan& plan, Index block_idx) {
  const Gemm& g = plan.product;
  const Index first_row = block_idx * plan.block_rows, rows = std::min(plan.block_rows, g.m - first_row);
  float* c = g.c + first_row * g.ldc;
  if (g.k == 0) {
    if (g.beta == 0)
      for (Index row = 0; row < rows; ++row) std::fill_n(c + row * g.ldc, g.n, 0.0f);
    return dnnl_success;
  }
  return dnnl_sgemm(g.transpose_a ? 'T' : 'N', g.transpose_b ? 'T' : 'N', rows, g.n, g.k, 1.0f,
                    g.a + first_row * (g.transpose_a ? 1 : g.lda), g.lda, g.b, g.ldb, g.beta, c, g.ldc);
}

// Calls body(plan, block_idx) for every block of every plan, count(plan) being their number in one.
template <typename Count, typename Body>
void for_blocks(const Context& context, std::span<const Plan> plans, const Count& count, const Body& body) {
  Index num_blocks = 0;
  for (const Plan& plan : plans) num_blocks += count(plan);
  context.threads->parallel_for(num_blocks, [&](Index block_idx) {
    const Plan* plan = plans.data();
    for (; block_idx >= count(*plan); ++plan) block_idx -= count(*plan);
    body(*plan, block_idx);
  });
}

}  // namespace

void gemm(const Context& context, std::span<const Gemm> products) {
  thread_local Scratch<Plan> plan_scratch;
  thread_local Scratch<float> copy_scratch;
  const auto num_products = static_cast<Index>(products.size());
  const std::span<Plan> plans(plan_scratch.get(num_products), products.size());
  Index copied = 0;
  for (std::size_t p = 0; p < products.size(); ++p) {
    plans[p] = make_plan(products[p]);
    copied += plans[p].copy.cols * plans[p].copy.stride;
  }
  float* to = copy_scratch.get(copied);
  for (Plan& plan : plans) {
    if (plan.copy.num_blocks == 0) continue;
    use_copy(plan, to);
    to += plan.copy.cols * plan.copy.stride;
  }

  for_blocks(
      context, plans, [](const Plan& plan) { return plan.copy.num_blocks; },
      [](const Plan& plan, Index block_idx) { transpose_block(plan.copy, block_idx); });
  std::atomic<int> status{dnnl_success};
  for_blocks(
      context, plans, [](const Plan& plan) { return plan.num_blocks; },
      [&](const Plan& plan, Index block_idx) {
        prepare_thread();
        const dnnl_status_t own = multiply_block(plan, block_idx);
        if (own != dnnl_success) status = own;
      });
  if (status != dnnl_success)
    fail("gemm: oneDNN refused a matrix product (status {}); is libdnnl the version that this program was built with?",
         status.load());
}

}  // namespace switchyard::kernels::cpu
