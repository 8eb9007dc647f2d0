// How a product is run: how its operands come to the form that tensor cores and vector loads take (bf16, rows a
// multiple of 16 bytes apart), how its sum is cut, and where its parts lie in the workspace of its list.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/api/gemm.hpp"
#include "kernels/cuda/gemm_kernels.hpp"

namespace switchyard::kernels::cuda {

// About how many tiles a large GPU multiplies at a time. The same on all, as the order of sums depends on it.
constexpr Index kTilesAtATime = 128;

inline bool is_aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

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

inline Stored stored_a(const Gemm& g) {
  return {
      g.a, g.a_rounded, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, g.precision == Precision::kBf16};
}
inline Stored stored_b(const Gemm& g) {
  return {
      g.b, g.b_rounded, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, g.precision == Precision::kBf16};
}

// cuBLASLt reads a bias in the type of C. (Its header and documentation say no more of the alignment than that the
// algorithm is chosen by the pointer's; what it chooses may read 16 bytes at a time.)
inline Stored stored_bias(const Gemm& g) { return {g.bias, nullptr, 1, g.n, g.n, g.c_rounded != nullptr}; }

// A bias that has to be rounded lies behind B, which is packed then, too.
inline const void* packed_bias(const Gemm& g) {
  if (!g.bias || !g.packed_b || !g.c_rounded) return nullptr;
  return static_cast<const std::byte*>(g.packed_b) + stored_b(g).staged_bytes();
}

// A product with few elements and a long sum, such as a weight's gradient, is cut along k into `count` slices of
// `depth` and a rest, so that there is work for a whole GPU.
struct Slices {
  Index count = 1, depth = 0, rest = 0;
  Index num_parts() const { return count + (rest > 0 ? 1 : 0); }
};
inline Slices slices_of(const Gemm& g) {
  constexpr Index kTile = 128, kMinDepth = 1024, kDepthMultiple = 32;
  const Index tiles = ceil_div(g.m, kTile) * ceil_div(g.n, kTile);
  const Index count = std::min(kTilesAtATime / tiles, g.k / kMinDepth);
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
  Part parts{};
  int staged_a = -1, staged_b = -1, staged_bias = -1;  // of the list's stagings; -1: read as it is
  int lane = 0;

  // Where multiply() does not, by the shape alone: sums in parts, and vectors, for which cuBLASLt has few algorithms.
  bool finish_adds_bias() const { return slices.num_parts() > 1 || gemm->k <= 1 || gemm->n == 1; }

  // Whether it has no use for a GPU's multiprocessors beside those that its own tiles take: by the shape alone, though
  // no bits rest on it.
  bool fills_a_gpu() const {
    constexpr Index kTileRows = 128, kTileCols = 256;
    return ceil_div(gemm->m, kTileRows) * ceil_div(gemm->n, kTileCols) * slices.count >= kTilesAtATime;
  }
  Index work() const { return gemm->m * gemm->n * gemm->k; }

  Index parts_bytes() const {
    return in_parts && gemm->k > 0 ? slices.num_parts() * gemm->m * ld_parts * Index{sizeof(float)} : 0;
  }
};

inline Plan make_plan(const Gemm& g) {
  Plan plan{.gemm = &g, .slices = slices_of(g)};
  const bool aligned =
      g.c_rounded || g.ldc % 4 != 0 || (is_aligned(g.c) && (g.num_addends == 0 || is_aligned(g.addends[0])));
  plan.in_parts =
      plan.slices.num_parts() > 1 || g.num_addends > 1 || !aligned || g.k == 0 || (g.bias && plan.finish_adds_bias());
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
      stagings.push_back(o.staging(space + parts_[i].offset));
    }
    stage(context, stagings);
  }
  // Read and written by run().
  Index bytes() const {
    Index sum = 0;
    for (const Stored& o : operands_) sum += o.rows * o.cols * Index{sizeof(float)} + o.staged_bytes();
    return sum;
  }
  const void* place(int staged, std::byte* space) const {
    return space + parts_[static_cast<std::size_t>(staged)].offset;
  }

 private:
  std::vector<Stored> operands_;
  std::vector<Part> parts_;
};

}  // namespace switchyard::kernels::cuda
