// Products: operands that do not have the form that tensor cores and vector loads take (bf16, rows a multiple of 16
// bytes apart) are brought into it, then multiplied by multiply(), and what has several parts or addends is added up in
// order.
//
// What the bits of C rest on: multiply()'s algorithm, and how k is cut, follow from the product's shape, leading
// dimensions and precision alone: not from addresses, other products of the list, the GPU's load or earlier calls.
// Unlike on the CPU, a row's bits do depend on how many rows there are; so a layout must not change a product's shape,
// and does not: each is of one microbatch, or of one expert with the rows of one source microbatch.
//
// A list is a loop of products here. cublasGemmGroupedBatchedEx (cuBLAS 12.5) would run small segments side by side,
// but chooses its algorithm for the whole group, which depends on the layout.
#include "kernels/api/gemm.hpp"

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "kernels/cuda/gemm_kernels.hpp"
#include "kernels/cuda/multiply.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr Index kAlignment = 16;  // bytes

bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % kAlignment == 0; }

// A, B or, as one row, the bias, as stored.
struct Stored {
  const float* values = nullptr;
  const Bf16* rounded = nullptr;
  Index rows = 0, cols = 0, ld = 0;
  bool bf16 = false;

  // Of the form that multiply() takes. fp32 rows that are aligned stay where they are.
  Index staged_ld() const { return bf16 ? rounded_cols(cols) : ld % 4 == 0 ? ld : round_up(cols, 4); }
  Index staged_bytes() const { return rows * staged_ld() * (bf16 ? 2 : 4); }
  Staging staging(void* to) const { return {values, to, rows, cols, ld, staged_ld(), bf16}; }
  bool fits_as_it_is() const { return rounded || (!bf16 && ld % 4 == 0 && is_aligned(values)); }
  const void* as_it_is() const { return rounded ? static_cast<const void*>(rounded) : values; }
  bool operator==(const Stored&) const = default;
};

Stored stored_a(const Gemm& g) {
  return {
      g.a, g.a_rounded, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, g.precision == Precision::kBf16};
}
Stored stored_b(const Gemm& g) {
  return {
      g.b, g.b_rounded, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, g.precision == Precision::kBf16};
}

// cuBLASLt reads a bias in the type of C. (Its header and documentation say no more of the alignment than that the
// algorithm is chosen by the pointer's; what it chooses may read 16 bytes at a time.)
Stored stored_bias(const Gemm& g) { return {g.bias, nullptr, 1, g.n, g.n, g.c_rounded != nullptr}; }

// A bias that has to be rounded lies behind B, which is packed then, too.
const void* packed_bias(const Gemm& g) {
  if (!g.packed_b || !g.c_rounded) return nullptr;
  return static_cast<const std::byte*>(g.packed_b) + stored_b(g).staged_bytes();
}

Index& bytes_staged_so_far() {  // one thread uses a device
  static Index bytes = 0;
  return bytes;
}

// A product with few elements and a long sum, such as a weight's gradient, is cut along k into `count` slices of
// `depth` and a rest, so that there is work for a whole GPU. kTiles is about how many tiles a large GPU multiplies at a
// time; it stays the same on all, as the order of sums depends on it.
struct Slices {
  Index count = 1, depth = 0, rest = 0;
  Index num_parts() const { return count + (rest > 0 ? 1 : 0); }
};
Slices slices_of(const Gemm& g) {
  constexpr Index kTile = 128, kTiles = 128, kMinDepth = 1024, kDepthMultiple = 32;
  const Index tiles = ceil_div(g.m, kTile) * ceil_div(g.n, kTile);
  const Index count = std::min(kTiles / tiles, g.k / kMinDepth);
  if (count < 2) return {1, g.k, 0};
  const Index depth = g.k / count / kDepthMultiple * kDepthMultiple;
  return {count, depth, g.k - count * depth};
}

struct Part {  // of the workspace
  Index offset = 0;
};
class Space {
 public:
  Part take(Index bytes) {
    const Part part{size_};
    size_ += round_up(bytes, 256);
    return part;
  }
  Index size() const { return size_; }

 private:
  Index size_ = 0;
};

struct Plan {
  const Gemm* gemm = nullptr;
  Slices slices;
  bool in_parts = false;  // multiply() writes parts, which finish() adds up, rather than C
  Index ld_parts = 0;
  int staged_a = -1, staged_b = -1, staged_bias = -1;  // of the list's stagings; -1: read as it is

  // Where multiply() does not: by the shape alone, since it adds in an order of its own.
  bool finish_adds_bias() const { return slices.num_parts() > 1 || gemm->k == 0; }

  Index parts_bytes() const {
    return in_parts && gemm->k > 0 ? slices.num_parts() * gemm->m * ld_parts * Index{sizeof(float)} : 0;
  }
};

Plan make_plan(const Gemm& g) {
  Plan plan{.gemm = &g, .slices = slices_of(g)};
  const bool aligned =
      g.c_rounded || g.ldc % 4 != 0 || (is_aligned(g.c) && (g.num_addends == 0 || is_aligned(g.addends[0])));
  plan.in_parts = plan.slices.num_parts() > 1 || g.num_addends > 1 || !aligned || g.k == 0;
  plan.ld_parts = plan.slices.num_parts() > 1 ? round_up(g.n, 4) : g.ldc;  // what C itself would have
  return plan;
}

// The operands of a list that have to be staged, each once however many products share it.
class StagedOperands {
 public:
  int add(const Stored& operand, Space& space) {
    const auto found = std::find(operands_.begin(), operands_.end(), operand);
    if (found != operands_.end()) return static_cast<int>(found - operands_.begin());
    operands_.push_back(operand);
    parts_.push_back(space.take(operand.staged_bytes()));
    return static_cast<int>(operands_.size()) - 1;
  }
  void run(const Context& context, std::byte* space) const {
    std::vector<Staging> stagings;
    for (std::size_t i = 0; i < operands_.size(); ++i) {
      const Stored& o = operands_[i];
      bytes_staged_so_far() += o.rows * o.cols * Index{sizeof(float)} + o.staged_bytes();
      stagings.push_back(o.staging(space + parts_[i].offset));
    }
    stage(context, stagings);
  }
  const void* place(int staged, std::byte* space) const {
    return space + parts_[static_cast<std::size_t>(staged)].offset;
  }

 private:
  std::vector<Stored> operands_;
  std::vector<Part> parts_;
};

Index ldc_of(const Gemm& g) { return g.c_rounded ? rounded_cols(g.n) : g.ldc; }

Finish finish_of(const Plan& plan, const float* parts) {
  const Gemm& g = *plan.gemm;
  return {.m = g.m,
          .n = g.n,
          .num_parts = g.k > 0 ? plan.slices.num_parts() : 0,
          .parts = parts,
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

void run_plan(const Context& context, const Plan& plan, const Places& places, float* parts, void* workspace) {
  const Gemm& g = *plan.gemm;
  const Stored as_a = stored_a(g), as_b = stored_b(g);
  const Slices& slices = plan.slices;
  if (g.k > 0) {
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
                    .c = plan.in_parts ? parts : g.c,
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
  if (plan.in_parts) finish(context, finish_of(plan, parts));
}

void refuse_mixed_forms(const Gemm& g) {
  if (g.bias && g.num_addends > 0) fail("gemm: a bias and addends: give one of the two, the order of sums being open");
  if ((g.a_rounded || g.b_rounded || g.c_rounded) && g.precision != Precision::kBf16)
    fail("gemm: {} is rounded to bf16, but the product is to be in fp32", g.c_rounded ? "C" : "an operand");
  if (g.c_rounded && (g.c || g.num_addends > 0))
    fail("gemm: C is to be rounded to bf16, and {}: give one of the two alone",
         g.c ? "written in fp32 as well" : "has addends, which are fp32");
}

}  // namespace

void gemm(const Context& context, std::span<const Gemm> products) {
  Space space;
  const Part for_multiply = space.take(kMultiplyWorkspaceBytes);
  StagedOperands staged;
  std::vector<Plan> plans;
  Index parts_bytes = 0;
  for (const Gemm& g : products) {
    if (g.m == 0 || g.n == 0) continue;
    refuse_mixed_forms(g);
    Plan& plan = plans.emplace_back(make_plan(g));
    parts_bytes = std::max(parts_bytes, plan.parts_bytes());
    if (g.k == 0) continue;
    const Stored a = stored_a(g), b = stored_b(g);
    if (!a.fits_as_it_is()) plan.staged_a = staged.add(a, space);
    if (!g.packed_b && !b.fits_as_it_is()) plan.staged_b = staged.add(b, space);
    const Stored bias = stored_bias(g);
    if (g.bias && !plan.finish_adds_bias() && !packed_bias(g) && !bias.fits_as_it_is())
      plan.staged_bias = staged.add(bias, space);
  }
  if (plans.empty()) return;
  const Part for_parts = space.take(parts_bytes);  // one after the other, as the stream's work is done in order

  auto* memory = static_cast<std::byte*>(workspace_bytes(context, space.size()));
  staged.run(context, memory);
  for (const Plan& plan : plans)
    run_plan(context, plan, places_of(plan, staged, memory), reinterpret_cast<float*>(memory + for_parts.offset),
             memory + for_multiply.offset);
}

Index staged_bytes() { return bytes_staged_so_far(); }

// An fp32 operand whose rows are aligned is read where it lies: nothing is packed.
Index packed_b_bytes(const Gemm& product) {
  const Stored b = stored_b(product);
  if (!b.bf16 && b.ld % 4 == 0) return 0;
  return b.staged_bytes() + (product.bias && product.c_rounded ? stored_bias(product).staged_bytes() : 0);
}

void pack_b(const Context& context, std::span<const PackB> packs) {
  std::vector<Staging> stagings;
  for (const auto& [product, to] : packs) {
    if (packed_b_bytes(product) == 0) continue;
    const Stored b = stored_b(product);
    stagings.push_back(b.staging(to));
    if (product.bias && product.c_rounded)
      stagings.push_back(stored_bias(product).staging(static_cast<std::byte*>(to) + b.staged_bytes()));
  }
  stage(context, stagings);
}

}  // namespace switchyard::kernels::cuda
