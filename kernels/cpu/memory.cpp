#include <cstdlib>
#include <cstring>

#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"

namespace switchyard::kernels::cpu {

void* allocate(Index bytes) {
  constexpr Index kAlignment = 64;
  if (bytes == 0) return nullptr;
  void* pointer =
      bytes < 0 ? nullptr : std::aligned_alloc(kAlignment, static_cast<std::size_t>(round_up(bytes, kAlignment)));
  if (!pointer)
    fail("No memory for {} bytes: use a smaller model or train.microbatch, or fewer ranks on this machine.", bytes);
  return pointer;
}

void release(void* pointer) { std::free(pointer); }

void fill_zero(void* pointer, Index bytes) {
  if (bytes > 0) std::memset(pointer, 0, static_cast<std::size_t>(bytes));
}

void copy(void* to, const void* from, Index bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<std::size_t>(bytes));
}

}  // namespace switchyard::kernels::cpu
