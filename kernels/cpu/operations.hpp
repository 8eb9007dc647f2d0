// The operations of kernels/api as the CPU does them; their equations and shapes stand there.
#pragma once

#include <span>

#include "kernels/api/operations.hpp"

namespace switchyard::kernels::cpu {

#define SWITCHYARD_OPERATION(operation, Arguments) void operation(const Context& context, const Arguments& args);
#define SWITCHYARD_LIST_OPERATION(operation, Arguments) \
  void operation(const Context& context, std::span<const Arguments> list);
#include "kernels/api/operations.def"

Index packed_b_bytes(const Gemm& product);
PackedForm packed_form(const Gemm& product);
Index count_not_finite(const float* x, Index size);

void* allocate(Index bytes);
void release(void* pointer);
void fill_zero(void* pointer, Index bytes);
void copy(void* to, const void* from, Index bytes);
void copy_to_host(std::span<const HostCopy> copies);

}  // namespace switchyard::kernels::cpu
