// Devices, memory and streams.
#include "kernels/cuda/runtime.hpp"

#include <array>
#include <exception>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "kernels/cuda/multiply.hpp"
#include "kernels/cuda/operations.hpp"

namespace switchyard::kernels::cuda {

namespace {

// CUDA keeps an error for whoever asks next: somebody else would take it for his own.
void forget_error() { (void)cudaGetLastError(); }

}  // namespace

void check(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return;
  forget_error();
  fail("{}: CUDA reports \"{}\"", what, cudaGetErrorString(error));
}

void fail_operation(const std::string& message) { fail("{}", message); }

namespace {

struct Workspace {
  Array<std::byte> memory;
  bool is_recorded = false;
  std::vector<Array<std::byte>> recorded;  // that were too small for others
};
std::map<void*, Workspace>& workspaces() {
  static std::map<void*, Workspace> by_stream;
  return by_stream;
}

}  // namespace

void* workspace_bytes(const Context& context, Index bytes) {
  Workspace& workspace = workspaces()[context.stream];
  Array<std::byte>& memory = workspace.memory;
  if (bytes > memory.size()) {
    synchronize(context);  // what was given out before may still be in use
    if (workspace.is_recorded) workspace.recorded.push_back(std::move(memory));
    workspace.is_recorded = false;
    memory = Array<std::byte>();
    memory = Array<std::byte>(Device::kCuda, bytes + bytes / 4);
  }
  workspace.is_recorded = workspace.is_recorded || is_recording();
  return memory.data();
}

void* allocate(Index bytes) {
  if (bytes == 0) return nullptr;
  refuse_to_record("allocation on the GPU");
  void* pointer = nullptr;
  const cudaError_t error = cudaMalloc(&pointer, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    forget_error();
    fail(
        "No memory on the GPU for {} bytes: use a smaller model or train.microbatch, more GPUs, or "
        "parallel.overlap = off.",
        bytes);
  }
  check(error, "allocation on the GPU");
  return pointer;
}

// cudaFree waits for the GPU. After an error that may be for ever, and the process ends anyway.
void release(void* pointer) {
  if (std::uncaught_exceptions() == 0) (void)cudaFree(pointer);
}

void copy_bytes(const Context& context, void* to, const void* from, Index bytes, cudaMemcpyKind kind) {
  if (bytes > 0 && to != from)
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream_of(context)), "copy of GPU memory");
}

void* allocate_host(Index bytes) {
  if (bytes == 0) return nullptr;
  void* pointer = nullptr;
  check(cudaHostAlloc(&pointer, static_cast<std::size_t>(bytes), cudaHostAllocDefault), "allocation of host memory");
  return pointer;
}

void release_host(void* pointer) {
  if (std::uncaught_exceptions() == 0) (void)cudaFreeHost(pointer);
}

void fill_zero(const Context& context, void* pointer, Index bytes) {
  if (bytes > 0)
    check(cudaMemsetAsync(pointer, 0, static_cast<std::size_t>(bytes), stream_of(context)), "filling GPU memory");
}

void copy(const Context& context, void* to, const void* from, Index bytes) {
  copy_bytes(context, to, from, bytes, cudaMemcpyDeviceToDevice);
}

int num_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  forget_error();
  return 0;
}

void use_device(int index) { check(cudaSetDevice(index), "choosing a GPU"); }

std::string device_name() {
  int device = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&device), "asking for the GPU in use");
  check(cudaGetDeviceProperties(&properties, device), "asking for the GPU's name");
  return fmt::format("{}, sm_{}{}", properties.name, properties.major, properties.minor);
}

std::string device_place() {
  int device = 0;
  char place[64] = {};
  check(cudaGetDevice(&device), "asking for the GPU in use");
  check(cudaDeviceGetPCIBusId(place, sizeof place, device), "asking for the GPU's place");
  return place;
}

std::string device_libraries() {
  int runtime = 0, driver = 0;
  check(cudaRuntimeGetVersion(&runtime), "asking for the version of CUDA's runtime");
  check(cudaDriverGetVersion(&driver), "asking for the version of CUDA's driver");
  const auto text = [](int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); };
  return fmt::format("CUDA runtime {}, driver for CUDA {}, {}", text(runtime), text(driver), product_library());
}

void* make_stream(Priority priority) {
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for the priorities of streams");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == Priority::kHigh ? greatest : least),
        "making a stream");
  return stream;
}

void destroy_stream(void* stream) {
  workspaces().erase(stream);
  release_staging(stream);
  (void)cudaStreamDestroy(static_cast<cudaStream_t>(stream));
}

Context lane(const Context& context, int index) {
  static std::array<void*, kMostLanes> streams{};
  if (index == 0) return context;
  void*& stream = streams[static_cast<std::size_t>(index)];
  if (!stream) stream = make_stream(Priority::kUsual);
  Context of_lane = context;
  of_lane.stream = stream;
  return of_lane;
}

// A stream that waits for an event waits for it as it is then, so one event serves all.
void wait_for(const Context& waiting, const Context& earlier) {
  if (waiting.stream == earlier.stream) return;
  static const cudaEvent_t event = [] {
    cudaEvent_t made = nullptr;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "making an event of the GPU");
    return made;
  }();
  check(cudaEventRecord(event, stream_of(earlier)), "marking a place in a stream");
  check(cudaStreamWaitEvent(stream_of(waiting), event, 0), "letting a stream wait for another");
}

namespace {

WaitWatch& wait_watch() {
  static WaitWatch watch;
  return watch;
}

}  // namespace

void watch_waits(WaitWatch watch) { wait_watch() = std::move(watch); }

void wait(std::string_view what, const std::function<cudaError_t()>& ask) {
  refuse_to_record(what);
  WaitedSeconds waited;
  cudaError_t answer = ask();
  for (; answer == cudaErrorNotReady; answer = ask()) {
    (void)cudaGetLastError();  // else the next launch would be told of it
    if (wait_watch()) wait_watch()(waited.look());
    std::this_thread::yield();
  }
  check(answer, what);
}

void synchronize(const Context& context) {
  wait("waiting for the GPU", [&] { return cudaStreamQuery(stream_of(context)); });
}

namespace {

// A place in a stream whose time the GPU notes.
class TimedEvent {
 public:
  TimedEvent() { check(cudaEventCreateWithFlags(&event_, cudaEventDefault), "making an event of the GPU"); }
  ~TimedEvent() { (void)cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;

  void record(const Context& context) {
    check(cudaEventRecord(event_, stream_of(context)), "marking a place in a stream");
  }
  double seconds_since(const TimedEvent& first) const {
    wait("waiting for the GPU", [&] { return cudaEventQuery(event_); });
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, first.event_, event_), "reading the GPU's clock");
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

double seconds_of(const Context& context, const std::function<void()>& work) {
  TimedEvent start, end;
  synchronize(context);
  start.record(context);
  work();
  end.record(context);
  return end.seconds_since(start);
}

}  // namespace switchyard::kernels::cuda
