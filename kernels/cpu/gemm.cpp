// Matrix products: B is packed whole, unless it comes packed, in panels that a tile of C reads in order; then each
// block of rows of C packs its own rows of A and goes tile by tile. An element of C is one sum along k, in order, in
// one register: its bits depend on its row of A and its column of B alone, not on m, n, the other products or the
// threads.
#include "kernels/api/gemm.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/cpu/gemm_pack.hpp"
#include "kernels/cpu/gemm_tile.hpp"
#include "kernels/cpu/operations.hpp"
#include "kernels/cpu/scratch.hpp"

namespace switchyard::kernels::cpu {

namespace {

template <typename Visit>
auto with_unit(Precision precision, const Visit& visit) {
  return precision == Precision::kBf16 ? visit(Bf16Unit{}) : visit(Fp32Unit{});
}

struct Plan {
  Gemm product;
  Operand a, b;
  Index depth_units = 0;
  Index num_pack_parts = 0;  // of B
  Index num_blocks = 0, block_rows = 0;
  const std::uint32_t* packed_b = nullptr;
  std::uint32_t* pack_b_to = nullptr;  // the same; null where B comes packed

  bool packs_b() const { return !product.packed_b && product.m > 0; }
  Index packed_size() const { return round_up(product.n, kGemmCols) * depth_units; }  // of B, in units
};

// A block's packed rows of A take part of the second-level cache, beside the panel of B at hand; several threads get
// several blocks each.
Index rows_in_block(const Gemm& g, Index depth, int num_threads) {
  constexpr Index kPackedUnits = 96 << 10, kBlocksPerThread = 4;
  Index rows = std::min(g.m, kPackedUnits / std::max<Index>(depth, 1));
  if (num_threads > 1) rows = std::min(rows, ceil_div(g.m, kBlocksPerThread * num_threads));
  return std::max(round_up(rows, kGemmRows), kGemmRows);
}

template <typename Unit>
Plan make_plan(const Gemm& g, int num_threads) {
  Plan plan;
  plan.product = g;
  if (g.n == 0) return plan;
  plan.a = {g.a, g.m, g.k, g.lda, !g.transpose_a};
  plan.b = {g.b, g.n, g.k, g.ldb, g.transpose_b};
  plan.depth_units = depth_units<Unit>(g.k);
  plan.packed_b = static_cast<const std::uint32_t*>(g.packed_b);
  plan.num_pack_parts = num_pack_parts<Unit>(plan.b, 0, g.n, kGemmCols);
  plan.block_rows = rows_in_block(g, plan.depth_units, num_threads);
  plan.num_blocks = ceil_div(g.m, plan.block_rows);
  return plan;
}

template <typename Unit>
void multiply_block(const Plan& plan, Index block) {
  thread_local Scratch<std::uint32_t> scratch;
  const Gemm& g = plan.product;
  const Index first_row = block * plan.block_rows, end_row = std::min(g.m, first_row + plan.block_rows);
  std::uint32_t* packed_a = scratch.get(plan.block_rows * plan.depth_units);
  const Index num_parts = num_pack_parts<Unit>(plan.a, first_row, end_row, kGemmRows);
  for (Index part = 0; part < num_parts; ++part) pack_part<Unit>(plan.a, first_row, end_row, kGemmRows, part, packed_a);
  for (Index col = 0; col < g.n; col += kGemmCols)
    for (Index row = first_row; row < end_row; row += kGemmRows)
      gemm_tile<Unit>({.depth_units = plan.depth_units,
                       .a = packed_a + (row - first_row) * plan.depth_units,
                       .b = plan.packed_b + col * plan.depth_units,
                       .rows = std::min(kGemmRows, end_row - row),
                       .cols = std::min(kGemmCols, g.n - col),
                       .first = row * g.ldc + col,
                       .stride = g.ldc,
                       .c = g.c,
                       .bias = g.bias ? g.bias + col : nullptr,
                       .addends = std::span(g.addends).first(static_cast<std::size_t>(g.num_addends))});
}

// Calls body(plan, part) for every part < count(plan) of every plan.
template <typename Count, typename Body>
void for_parts(const Context& context, std::span<const Plan> plans, const Count& count, const Body& body) {
  Index num_parts = 0;
  for (const Plan& plan : plans) num_parts += count(plan);
  context.threads->parallel_for(num_parts, [&](Index part) {
    const Plan* plan = plans.data();
    for (; part >= count(*plan); ++plan) part -= count(*plan);
    body(*plan, part);
  });
}

Plan make_plan(const Context& context, const Gemm& product) {
  return with_unit(product.precision,
                   [&](auto unit) { return make_plan<decltype(unit)>(product, context.threads->num_threads()); });
}

void pack_bs(const Context& context, std::span<const Plan> plans) {
  for_parts(
      context, plans, [](const Plan& plan) { return plan.pack_b_to ? plan.num_pack_parts : 0; },
      [](const Plan& plan, Index part) {
        with_unit(plan.product.precision, [&](auto unit) {
          pack_part<decltype(unit)>(plan.b, 0, plan.product.n, kGemmCols, part, plan.pack_b_to);
        });
      });
}

}  // namespace

void gemm(const Context& context, std::span<const Gemm> products) {
  for (const Gemm& g : products)
    if (g.bias && g.num_addends > 0)
      fail("gemm: a bias and addends: give one of the two, the order of sums being open");
  thread_local Scratch<Plan> plan_scratch;
  thread_local Scratch<std::uint32_t> packed_scratch;
  const std::span<Plan> plans(plan_scratch.get(static_cast<Index>(products.size())), products.size());
  Index packed_size = 0;
  for (std::size_t p = 0; p < products.size(); ++p) {
    plans[p] = make_plan(context, products[p]);
    if (plans[p].packs_b()) packed_size += plans[p].packed_size();
  }
  std::uint32_t* packed = packed_scratch.get(packed_size);
  for (Plan& plan : plans) {
    if (!plan.packs_b()) continue;
    plan.packed_b = plan.pack_b_to = packed;
    packed += plan.packed_size();
  }
  pack_bs(context, plans);
  for_parts(
      context, plans, [](const Plan& plan) { return plan.num_blocks; },
      [](const Plan& plan, Index block) {
        with_unit(plan.product.precision, [&](auto unit) { multiply_block<decltype(unit)>(plan, block); });
      });
}

Index packed_b_bytes(const Gemm& g) {
  const Index depth = with_unit(g.precision, [&](auto unit) { return depth_units<decltype(unit)>(g.k); });
  return round_up(g.n, kGemmCols) * depth * Index{sizeof(std::uint32_t)};
}

PackedForm packed_form(const Gemm& g) { return {.transposed = g.transpose_b}; }

void pack_b(const Context& context, std::span<const PackB> packs) {
  thread_local Scratch<Plan> plan_scratch;
  const std::span<Plan> plans(plan_scratch.get(static_cast<Index>(packs.size())), packs.size());
  for (std::size_t p = 0; p < packs.size(); ++p) {
    plans[p] = make_plan(context, packs[p].product);
    plans[p].pack_b_to = static_cast<std::uint32_t*>(packs[p].to);
  }
  pack_bs(context, plans);
}

}  // namespace switchyard::kernels::cpu
