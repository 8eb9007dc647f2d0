// The operations of kernels/api as CUDA devices do them; their equations and shapes stand there. All are given to the
// context's stream and return at once, but copy_to_host and count_not_finite, which wait.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/api/device.hpp"
#include "kernels/api/graph.hpp"
#include "kernels/api/operations.hpp"

namespace switchyard::kernels::cuda {

#define SWITCHYARD_OPERATION(operation, Arguments) void operation(const Context& context, const Arguments& args);
#define SWITCHYARD_LIST_OPERATION(operation, Arguments) \
  void operation(const Context& context, std::span<const Arguments> list);
#include "kernels/api/operations.def"

Index packed_b_bytes(const Gemm& product);
PackedForm packed_form(const Gemm& product);
Index staged_bytes();
std::string product_algorithms();
Index count_not_finite(const Context& context, const float* x, Index size);

void* allocate(Index bytes);
void release(void* pointer);
void* allocate_host(Index bytes);
void release_host(void* pointer);
void fill_zero(const Context& context, void* pointer, Index bytes);
void copy(const Context& context, void* to, const void* from, Index bytes);
void copy_to_device(const Context& context, void* to, const void* from, Index bytes);
void copy_to_host(const Context& context, void* to, const void* from, Index bytes);
void copy_to_host(const Context& context, std::span<const HostCopy> copies);

int num_devices();
void use_device(int index);
std::string device_name();
std::string device_place();
std::string device_libraries();
void* make_stream(Priority priority);
void destroy_stream(void* stream);
void wait_for(const Context& waiting, const Context& earlier);
void synchronize(const Context& context);
std::unique_ptr<Graph> record(const Context& context, const std::function<void()>& work);
double seconds_of(const Context& context, const std::function<void()>& work);
void watch_waits(WaitWatch watch);

}  // namespace switchyard::kernels::cuda
