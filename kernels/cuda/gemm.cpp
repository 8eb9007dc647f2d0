// Products: operands are brought into the form that multiply() takes, multiplied by it, and what has several parts or
// addends is added up in order.
//
// What the bits of C rest on: multiply()'s algorithm, and how k is cut, follow from the product's shape, leading
// dimensions and precision alone: not from addresses, other products of the list, the GPU's load or earlier calls.
// Unlike on the CPU, a row's bits do depend on how many rows there are; so a layout must not change a product's shape,
// and does not: each is of one microbatch, or of one expert with the rows of one source microbatch.
//
// Products of a list that do not fill a GPU, as those of small segments, run side by side, on streams of their own.
// (cublasGemmGroupedBatchedEx of cuBLAS 12.5 would make them one launch, but chooses its algorithm for the whole group,
// which depends on the layout.)
#include "kernels/api/gemm.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.hpp"
#include "kernels/cuda/gemm_kernels.hpp"
#include "kernels/cuda/gemm_plan.hpp"
#include "kernels/cuda/multiply.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

Index& bytes_staged_so_far() {  // one thread uses a device
  static Index bytes = 0;
  return bytes;
}

Index ldc_of(const Gemm& g) { return g.c_rounded ? rounded_cols(g.n) : g.ldc; }

float* parts_of(const Plan& plan, std::byte* memory) { return reinterpret_cast<float*>(memory + plan.parts.offset); }

Finish finish_of(const Plan& plan, std::byte* memory) {
  const Gemm& g = *plan.gemm;
  return {.m = g.m,
          .n = g.n,
          .num_parts = g.k > 0 ? plan.slices.num_parts() : 0,
          .parts = parts_of(plan, memory),
          .ld_parts = plan.ld_parts,
          .num_addends = g.num_addends,
          .addends = g.addends,
          .c = g.c,
          .ldc = ldc_of(g),
          .c_rounded = g.c_rounded,
          .bias = plan.finish_adds_bias() ? g.bias : nullptr};
}

// Where the operands lie in the form that multiply() takes.
struct Places {
  const void *a, *b, *bias;
};
Places places_of(const Plan& plan, const StagedOperands& staged, std::byte* memory) {
  const Gemm& g = *plan.gemm;
  const auto place = [&](int of_staged, const void* packed, const Stored& operand) {
    return of_staged >= 0 ? staged.place(of_staged, memory) : packed ? packed : operand.as_it_is();
  };
  return {place(plan.staged_a, nullptr, stored_a(g)), place(plan.staged_b, g.packed_b, stored_b(g)),
          place(plan.staged_bias, packed_bias(g), stored_bias(g))};
}

// context: of the plan's lane, whose workspace lies at its place in the memory.
void multiply_plan(const Context& context, const Plan& plan, const Places& places, std::byte* memory) {
  const Gemm& g = *plan.gemm;
  if (g.k == 0) return;
  const Stored as_a = stored_a(g), as_b = stored_b(g);
  const Slices& slices = plan.slices;
  void* const workspace = memory + plan.lane * kMultiplyWorkspaceBytes;
  Product product{.transpose_a = g.transpose_a,
                  .transpose_b = g.transpose_b,
                  .bf16 = as_a.bf16,
                  .tf32 = g.precision == Precision::kTf32,
                  .m = g.m,
                  .n = g.n,
                  .k = slices.depth,
                  .batch = slices.count,
                  .a = places.a,
                  .b = places.b,
                  .c = plan.in_parts ? parts_of(plan, memory) : g.c,
                  .c_rounded = plan.in_parts ? nullptr : g.c_rounded,
                  .addend = plan.in_parts || g.num_addends == 0 ? nullptr : g.addends[0],
                  .bias = plan.finish_adds_bias() ? nullptr : places.bias,
                  .lda = as_a.staged_ld(),
                  .ldb = as_b.staged_ld(),
                  .ldc = plan.in_parts ? plan.ld_parts : ldc_of(g)};
  product.stride_a = slices.depth * (g.transpose_a ? product.lda : 1);
  product.stride_b = slices.depth * (g.transpose_b ? 1 : product.ldb);
  product.stride_c = g.m * product.ldc;
  multiply(context, product, workspace);
  if (slices.rest > 0) {
    const Index element_bytes = as_a.bf16 ? 2 : 4;
    product.a = static_cast<const std::byte*>(places.a) + slices.count * product.stride_a * element_bytes;
    product.b = static_cast<const std::byte*>(places.b) + slices.count * product.stride_b * element_bytes;
    product.c += slices.count * product.stride_c;
    product.k = slices.rest;
    product.batch = 1;
    multiply(context, product, workspace);
  }
}

void refuse_mixed_forms(const Gemm& g) {
  if (g.bias && g.num_addends > 0) fail("gemm: a bias and addends: give one of the two, the order of sums being open");
  if ((g.a_rounded || g.b_rounded || g.c_rounded) && g.precision != Precision::kBf16)
    fail("gemm: {} is rounded to bf16, but the product is to be in fp32", g.c_rounded ? "C" : "an operand");
  if (g.c_rounded && (g.c || g.num_addends > 0))
    fail("gemm: C is to be rounded to bf16, and {}: give one of the two alone",
         g.c ? "written in fp32 as well" : "has addends, which are fp32");
}

void stage_operands(Plan& plan, StagedOperands& staged, Space& space) {
  const Gemm& g = *plan.gemm;
  if (g.k == 0) return;
  const Stored a = stored_a(g), b = stored_b(g), bias = stored_bias(g);
  if (!a.fits_as_it_is()) plan.staged_a = staged.add(a, space);
  if (!g.packed_b && !b.fits_as_it_is()) plan.staged_b = staged.add(b, space);
  if (g.bias && !plan.finish_adds_bias() && !packed_bias(g) && !bias.fits_as_it_is())
    plan.staged_bias = staged.add(bias, space);
}

// Returns how many lanes there are. What fills a GPU stays on the context's own stream, lane 0; of the others each goes
// to the lane with the least work so far.
int choose_lanes(std::vector<Plan>& plans) {
  const auto small = std::count_if(plans.begin(), plans.end(), [](const Plan& p) { return !p.fills_a_gpu(); });
  if (small < 2) return 1;
  std::array<Index, kMostLanes> work{};
  for (const Plan& plan : plans)
    if (plan.fills_a_gpu()) work[0] += plan.work();
  int lanes = 1;
  for (Plan& plan : plans) {
    if (plan.fills_a_gpu()) continue;
    const auto least = std::min_element(work.begin(), work.end());
    *least += plan.work();
    plan.lane = static_cast<int>(least - work.begin());
    lanes = std::max(lanes, plan.lane + 1);
  }
  return lanes;
}

// Every product on its lane's stream, from where the context's is now; the context's goes on when all are done.
void multiply_all(const Context& context, const std::vector<Plan>& plans, int lanes, const StagedOperands& staged,
                  std::byte* memory) {
  for (int i = 1; i < lanes; ++i) wait_for(lane(context, i), context);
  for (const Plan& plan : plans) multiply_plan(lane(context, plan.lane), plan, places_of(plan, staged, memory), memory);
  for (int i = 1; i < lanes; ++i) wait_for(context, lane(context, i));
}

}  // namespace

void gemm(const Context& context, std::span<const Gemm> products) {
  StagedOperands staged;
  std::vector<Plan> plans;
  for (const Gemm& g : products) {
    if (g.m == 0 || g.n == 0) continue;
    refuse_mixed_forms(g);
    plans.push_back(make_plan(g));
  }
  if (plans.empty()) return;
  const int lanes = choose_lanes(plans);
  Space space;
  for (int i = 0; i < lanes; ++i) space.take(kMultiplyWorkspaceBytes);
  for (Plan& plan : plans) {
    plan.parts = space.take(plan.parts_bytes());
    stage_operands(plan, staged, space);
  }

  auto* memory = static_cast<std::byte*>(workspace_bytes(context, space.size()));
  staged.run(context, memory);
  bytes_staged_so_far() += staged.bytes();
  multiply_all(context, plans, lanes, staged, memory);
  std::vector<Finish> finishes;
  for (const Plan& plan : plans)
    if (plan.in_parts) finishes.push_back(finish_of(plan, memory));
  finish(context, finishes);
}

Index staged_bytes() { return bytes_staged_so_far(); }

// An fp32 operand whose rows are aligned is read where it lies: nothing is packed.
Index packed_b_bytes(const Gemm& product) {
  const Stored b = stored_b(product);
  if (!b.bf16 && b.ld % 4 == 0) return 0;
  return b.staged_bytes() + (packed_form(product).with_bias ? stored_bias(product).staged_bytes() : 0);
}

// B's rows are staged as they are stored, whichever way they are multiplied.
PackedForm packed_form(const Gemm& product) { return {.with_bias = product.bias && product.c_rounded}; }

void pack_b(const Context& context, std::span<const PackB> packs) {
  std::vector<Staging> stagings;
  for (const auto& [product, to] : packs) {
    if (packed_b_bytes(product) == 0) continue;
    const Stored b = stored_b(product);
    stagings.push_back(b.staging(to));
    if (packed_form(product).with_bias)
      stagings.push_back(stored_bias(product).staging(static_cast<std::byte*>(to) + b.staged_bytes()));
  }
  stage(context, stagings);
}

}  // namespace switchyard::kernels::cuda
