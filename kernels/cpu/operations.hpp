// The operations of kernels/api as the CPU does them; their equations and shapes stand there.
#pragma once

#include <span>

#include "kernels/api/operations.hpp"

namespace switchyard::kernels::cpu {

#define SWITCHYARD_OPERATION(operation, Arguments) void operation(const Context& context, const Arguments& args);
#include "kernels/api/operations.def"

void gemm(const Context& context, std::span<const Gemm> products);
Index packed_b_bytes(const Gemm& product);
void pack_b(const Context& context, const Gemm& product, void* packed_b);
void leaf_forward(const Context& context, std::span<const LeafForward> leaves);
Index count_not_finite(const float* x, Index size);

void* allocate(Index bytes);
void release(void* pointer);
void fill_zero(void* pointer, Index bytes);
void copy(void* to, const void* from, Index bytes);
void copy_to_host(std::span<const HostCopy> copies);

}  // namespace switchyard::kernels::cpu
