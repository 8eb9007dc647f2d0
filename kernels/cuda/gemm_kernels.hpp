// What a matrix product does beside the product itself.
#pragma once

#include <array>
#include <span>

#include "core/context.hpp"
#include "kernels/api/operand.hpp"
#include "kernels/api/reduce.hpp"

namespace switchyard::kernels::cuda {

// to (rows, ld_to) = from (rows, cols), rounded to bf16 where asked for; zeros in the columns from cols on.
// to: 16-byte aligned, ld_to a multiple of 4 and at least cols.
struct Staging {
  const float* from = nullptr;
  void* to = nullptr;
  Index rows = 0, cols = 0, ld_from = 0, ld_to = 0;
  bool bf16 = false;
};
void stage(const Context& context, std::span<const Staging> stagings);

// C (m, n) = addends[last] + (... + (addends[0] + (parts[0] + parts[1] + ... in this order))), or the parts and then
// the bias; no parts: zero.
struct Finish {
  Index m = 0, n = 0, num_parts = 0;
  const float* parts = nullptr;  // (num_parts, m, ld_parts)
  Index ld_parts = 0;
  int num_addends = 0;
  std::array<const float*, kMaxTreeLevels> addends{};  // rows ldc apart, as those of c, which may be one of them
  float* c = nullptr;
  Index ldc = 0;
  Bf16* c_rounded = nullptr;    // in place of c, then without addends; rows ldc apart
  const float* bias = nullptr;  // (n), rounded where C is; null: none
};
void finish(const Context& context, std::span<const Finish> all);

}  // namespace switchyard::kernels::cuda
