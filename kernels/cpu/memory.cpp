#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/error.hpp"
#include "kernels/cpu/operations.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr Index kAlignment = 64;
// Arrays from this size on are asked to lie in huge pages: rows far apart would else cost a look-up in the page tables
// each.
constexpr Index kHugePage = Index{2} << 20;

}  // namespace

void* allocate(Index bytes) {
  if (bytes == 0) return nullptr;
  const Index alignment = bytes >= kHugePage ? kHugePage : kAlignment;
  const auto size = static_cast<std::size_t>(bytes < 0 ? 0 : round_up(bytes, alignment));
  void* pointer = size == 0 ? nullptr : std::aligned_alloc(static_cast<std::size_t>(alignment), size);
  if (!pointer)
    fail("No memory for {} bytes: use a smaller model or train.microbatch, or fewer ranks on this machine.", bytes);
  if (alignment == kHugePage) madvise(pointer, size, MADV_HUGEPAGE);  // advice only: no matter if it is not taken
  return pointer;
}

void release(void* pointer) { std::free(pointer); }

void fill_zero(void* pointer, Index bytes) {
  if (bytes > 0) std::memset(pointer, 0, static_cast<std::size_t>(bytes));
}

void copy(void* to, const void* from, Index bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<std::size_t>(bytes));
}

void copy_to_host(std::span<const HostCopy> copies) {
  for (const HostCopy& each : copies) copy(each.to, each.from, each.bytes);
}

}  // namespace switchyard::kernels::cpu
