// The one switch on the device: kernels::f(context, args) calls kernels::cpu::f or kernels::cuda::f.
#include <exception>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "kernels/api/device.hpp"
#include "kernels/api/graph.hpp"
#include "kernels/api/version.hpp"
#include "kernels/cpu/operations.hpp"
#ifdef SWITCHYARD_HAS_CUDA
#include "kernels/cuda/operations.hpp"
#endif

namespace switchyard::kernels {

namespace {

[[noreturn]] [[maybe_unused]] void fail_without_cuda(const char* operation) {
  fail("{}: this program was built without CUDA kernels; set compute.device = cpu, or build with -DSWITCHYARD_CUDA=ON.",
       operation);
}

// A GPU does its work later: what a kernel takes is seen by waiting for it.
class Profiled {
 public:
  Profiled(const Context& context, std::string_view operation)
      : kernel_(context.profile, operation), context_(context) {}
  ~Profiled() noexcept(false) {
    if (is_timed() && std::uncaught_exceptions() == 0) synchronize(context_);
  }

 private:
  bool is_timed() const { return context_.device == Device::kCuda && context_.profile && context_.profile->current; }

  ProfiledKernel kernel_;
  const Context& context_;
};

}  // namespace

// Calls f of the namespace of `device`: on_cuda(cuda::f(...)), or on_cpu(cpu::f(...)).
#ifdef SWITCHYARD_HAS_CUDA
#define SWITCHYARD_ON(device, operation, on_cpu, on_cuda) return device == Device::kCuda ? on_cuda : on_cpu
#else
#define SWITCHYARD_ON(device, operation, on_cpu, on_cuda)    \
  if (device == Device::kCuda) fail_without_cuda(operation); \
  return on_cpu
#endif

#define SWITCHYARD_OPERATION(operation, Arguments)                                                            \
  void operation(const Context& context, const Arguments& args) {                                             \
    const Profiled profiled(context, #operation);                                                             \
    SWITCHYARD_ON(context.device, #operation, cpu::operation(context, args), cuda::operation(context, args)); \
  }
#define SWITCHYARD_LIST_OPERATION(operation, Arguments)                                                       \
  void operation(const Context& context, std::span<const Arguments> list) {                                   \
    const Profiled profiled(context, #operation);                                                             \
    SWITCHYARD_ON(context.device, #operation, cpu::operation(context, list), cuda::operation(context, list)); \
  }
#include "kernels/api/operations.def"

Index packed_b_bytes(const Context& context, const Gemm& product) {
  SWITCHYARD_ON(context.device, "packed_b_bytes", cpu::packed_b_bytes(product), cuda::packed_b_bytes(product));
}

PackedForm packed_form(const Context& context, const Gemm& product) {
  SWITCHYARD_ON(context.device, "packed_form", cpu::packed_form(product), cuda::packed_form(product));
}

std::string device_libraries(Device device) {
  SWITCHYARD_ON(device, "device_libraries", std::string(), cuda::device_libraries());
}

Index staged_bytes(Device device) { SWITCHYARD_ON(device, "staged_bytes", Index{0}, cuda::staged_bytes()); }

bool reads_rounded(Device device, Precision precision) {
  return device == Device::kCuda && precision == Precision::kBf16;
}

std::string product_algorithms(Device device) {
  SWITCHYARD_ON(device, "product_algorithms", std::string(), cuda::product_algorithms());
}

Index count_not_finite(const Context& context, const float* x, Index size) {
  SWITCHYARD_ON(context.device, "count_not_finite", cpu::count_not_finite(x, size),
                cuda::count_not_finite(context, x, size));
}

void* allocate(Device device, Index bytes) {
  SWITCHYARD_ON(device, "allocate", cpu::allocate(bytes), cuda::allocate(bytes));
}

void release(Device device, void* pointer) {
  SWITCHYARD_ON(device, "release", cpu::release(pointer), cuda::release(pointer));
}

void* allocate_host(Device device, Index bytes) {
  SWITCHYARD_ON(device, "allocate_host", cpu::allocate(bytes), cuda::allocate_host(bytes));
}

void release_host(Device device, void* pointer) {
  SWITCHYARD_ON(device, "release_host", cpu::release(pointer), cuda::release_host(pointer));
}

void fill_zero(const Context& context, void* pointer, Index bytes) {
  const Profiled profiled(context, "fill_zero");
  SWITCHYARD_ON(context.device, "fill_zero", cpu::fill_zero(pointer, bytes), cuda::fill_zero(context, pointer, bytes));
}

void copy(const Context& context, void* to, const void* from, Index bytes) {
  const Profiled profiled(context, "copy");
  SWITCHYARD_ON(context.device, "copy", cpu::copy(to, from, bytes), cuda::copy(context, to, from, bytes));
}

void copy_to_device(const Context& context, void* to, const void* from, Index bytes) {
  const Profiled profiled(context, "copy");
  SWITCHYARD_ON(context.device, "copy_to_device", cpu::copy(to, from, bytes),
                cuda::copy_to_device(context, to, from, bytes));
}

void copy_to_host(const Context& context, void* to, const void* from, Index bytes) {
  const Profiled profiled(context, "copy");
  SWITCHYARD_ON(context.device, "copy_to_host", cpu::copy(to, from, bytes),
                cuda::copy_to_host(context, to, from, bytes));
}

void copy_to_host(const Context& context, std::span<const HostCopy> copies) {
  const Profiled profiled(context, "copy");
  SWITCHYARD_ON(context.device, "copy_to_host", cpu::copy_to_host(copies), cuda::copy_to_host(context, copies));
}

#ifdef SWITCHYARD_HAS_CUDA
bool is_built_for(Device) { return true; }
#else
bool is_built_for(Device device) { return device == Device::kCpu; }
#endif

int num_devices(Device device) {
#ifdef SWITCHYARD_HAS_CUDA
  if (device == Device::kCuda) return cuda::num_devices();
#endif
  return device == Device::kCpu ? 1 : 0;
}

void use_device(Device device, [[maybe_unused]] int index) {
  SWITCHYARD_ON(device, "use_device", void(), cuda::use_device(index));
}

std::string device_name(Device device) {
  SWITCHYARD_ON(device, "device_name", std::string("CPU"), cuda::device_name());
}

std::string device_place(Device device) {
  SWITCHYARD_ON(device, "device_place", std::string("CPU"), cuda::device_place());
}

void* make_stream(Device device, [[maybe_unused]] Priority priority) {
  SWITCHYARD_ON(device, "make_stream", static_cast<void*>(nullptr), cuda::make_stream(priority));
}

void destroy_stream(Device device, [[maybe_unused]] void* stream) {
  SWITCHYARD_ON(device, "destroy_stream", void(), cuda::destroy_stream(stream));
}

void watch_waits(Device device, [[maybe_unused]] WaitWatch watch) {
  SWITCHYARD_ON(device, "watch_waits", void(), cuda::watch_waits(std::move(watch)));
}

void wait_for(const Context& waiting, const Context& earlier) {
  SWITCHYARD_ON(waiting.device, "wait_for", (void)earlier, cuda::wait_for(waiting, earlier));
}

void synchronize(const Context& context) {
  SWITCHYARD_ON(context.device, "synchronize", void(), cuda::synchronize(context));
}

namespace {

double seconds_on_cpu(const std::function<void()>& work) {
  const double start = seconds_now();
  work();
  return seconds_now() - start;
}

}  // namespace

std::unique_ptr<Graph> record(const Context& context, [[maybe_unused]] const std::function<void()>& work) {
#ifdef SWITCHYARD_HAS_CUDA
  if (context.device == Device::kCuda) return cuda::record(context, work);
#endif
  fail("{}: launches are recorded for a GPU, and this is none", device_name(context.device));
}

double seconds_of(const Context& context, const std::function<void()>& work) {
  SWITCHYARD_ON(context.device, "seconds_of", seconds_on_cpu(work), cuda::seconds_of(context, work));
}

}  // namespace switchyard::kernels
