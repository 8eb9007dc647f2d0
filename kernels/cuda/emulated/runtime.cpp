// Devices, memory, streams and events.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "kernels/cuda/emulated/streams.hpp"

namespace emulated {

namespace {

constexpr int kSharedBytes = 227 << 10;  // that a block may have, as on an H100

// Device memory by its first byte.
struct Memory {
  std::byte* pages;
  std::size_t bytes;
};
std::map<void*, Memory> memories;

// While one lives, device memory can be touched.
class Access {
 public:
  Access() {
    if (lives++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  ~Access() {
    if (--lives == 0) protect(PROT_NONE);
  }

 private:
  static inline int lives = 0;
  static void protect(int how) {
    for (const auto& [pointer, memory] : memories) mprotect(memory.pages, memory.bytes, how);
  }
};

// Page-locked host memory: the end of each array by its first byte. Never released itself, as the streams, since static
// objects of others release memory when the program ends.
std::map<const std::byte*, const std::byte*>& page_locked() {
  static auto* const arrays = new std::map<const std::byte*, const std::byte*>;
  return *arrays;
}

bool is_page_locked(const void* pointer) {
  const auto* byte = static_cast<const std::byte*>(pointer);
  const auto next = page_locked().upper_bound(byte);
  return next != page_locked().begin() && byte < std::prev(next)->second;
}

std::set<cudaStream_t>& streams() {
  static auto* const all = new std::set<cudaStream_t>;
  return *all;
}

}  // namespace

cudaStream_t known(cudaStream_t stream) {
  static auto* const default_stream = [] {
    auto* const made = new CUstream_st;
    streams().insert(made);
    return made;
  }();
  return stream ? stream : default_stream;
}

namespace {

// The stream's work, until so much of it has been done in all.
void do_until(cudaStream_t stream, long num_done) {
  if (stream->num_done >= num_done) return;
  const Access access;  // once for all of it: to open and close pages takes long
  while (stream->num_done < num_done) {
    const std::function<void()> next = std::move(stream->work.front());
    stream->work.pop_front();
    ++stream->num_done;
    next();
  }
}

long num_given(cudaStream_t stream) { return stream->num_done + static_cast<long>(stream->work.size()); }

void do_all(cudaStream_t stream) { do_until(stream, num_given(stream)); }

// As the host waits for it.
void do_for_host(cudaStream_t stream, long num_done) {
  if (others_first())
    for (const cudaStream_t other : streams())
      if (other != stream) do_all(other);
  do_until(stream, num_done);
}

void do_everything() {
  for (const cudaStream_t stream : streams()) do_all(stream);
}

long host_waits = 0, idle_waits = 0, launches = 0;
cudaError_t last_error = cudaSuccess;

// The first question about work that has not been done is answered by "not ready", and has it done.
cudaError_t answer(cudaStream_t stream, long num_done, bool& refused) {
  refused = !refused && stream->num_done < num_done;
  if (!refused) return cudaSuccess;
  ++host_waits;
  idle_waits += num_done == num_given(stream);
  do_for_host(stream, num_done);
  return last_error = cudaErrorNotReady;
}

}  // namespace

long num_host_waits() { return host_waits; }
// Those after which the stream has nothing to do until the host gives it something.
long num_idle_waits() { return idle_waits; }
long num_launches() { return launches; }

void give(cudaStream_t stream, std::function<void()> work) {
  if (known(stream)->capture) return capture_work(known(stream), std::move(work));
  ++launches;
  known(stream)->work.push_back(std::move(work));
}

}  // namespace emulated

using emulated::Access;
using emulated::give;
using emulated::host_waits;
using emulated::known;
using emulated::memories;
using emulated::refuse;

// The last byte lies as near to the end of its last page as an alignment of 256 bytes allows.
cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (emulated::refuses_memory()) return cudaErrorStreamCaptureUnsupported;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t rounded = (bytes + 255) / 256 * 256, size = (rounded + page - 1) / page * page;
  void* pages = mmap(nullptr, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
  *pointer = static_cast<std::byte*>(pages) + (size - rounded);
  memories[*pointer] = {static_cast<std::byte*>(pages), size};
  // NaN. What is larger stays unpoisoned: to open and close pages takes long once they have been written.
  constexpr std::size_t kPoisoned = 256 << 10;
  const Access access;
  if (size <= kPoisoned) std::memset(pages, 0xff, size);
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  if (emulated::refuses_memory()) return cudaErrorStreamCaptureUnsupported;
  ++host_waits;
  emulated::do_everything();
  const auto found = memories.find(pointer);
  if (found == memories.end()) return cudaErrorInvalidValue;
  // Its addresses are not given out again, so that who still uses them is found out.
  mmap(found->second.pages, found->second.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
       0);
  memories.erase(found);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  if (emulated::refuses_memory()) return cudaErrorStreamCaptureUnsupported;
  *pointer = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!*pointer) return cudaErrorMemoryAllocation;
  const auto* first = static_cast<const std::byte*>(*pointer);
  emulated::page_locked()[first] = first + bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  if (emulated::refuses_memory()) return cudaErrorStreamCaptureUnsupported;
  ++host_waits;
  emulated::do_everything();
  emulated::page_locked().erase(static_cast<const std::byte*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

// What goes to or from memory that is not page-locked, the host waits for.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const void* host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
  const bool waits = host && !emulated::is_page_locked(host);
  if (waits && known(stream)->capture) return refuse(known(stream)->capture, cudaErrorStreamCaptureUnsupported);
  give(stream, [=] { std::memmove(to, from, bytes); });
  if (!waits) return cudaSuccess;
  ++host_waits;
  emulated::do_for_host(known(stream), emulated::num_given(known(stream)));
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream) {
  give(stream, [=] { std::memset(pointer, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = new CUstream_st;
  emulated::streams().insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulated::do_everything();  // others may wait for this one
  emulated::streams().erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const cudaStream_t asked = known(stream);
  if (asked->capture) return refuse(asked->capture, cudaErrorStreamCaptureUnsupported);
  return emulated::answer(asked, emulated::num_given(asked), asked->refused);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture || known(stream)->capture) return emulated::capture_wait(known(stream), *event);
  if (event->stream)
    known(stream)->work.push_back(
        [from = event->stream, num_before = event->num_before] { emulated::do_until(from, num_before); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st;
  if ((flags & cudaEventDisableTiming) == 0) (*event)->reached = std::make_shared<CUevent_st::Clock::time_point>();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const cudaStream_t marked = known(stream);
  event->capture = marked->capture;
  if (marked->capture) {
    event->stream = marked;
    event->num_before = marked->num_captured;
    return cudaSuccess;
  }
  if (event->reached) marked->work.push_back([reached = event->reached] { *reached = CUevent_st::Clock::now(); });
  event->stream = marked;
  event->num_before = emulated::num_given(marked);
  event->refused = false;
  return cudaSuccess;
}

// Of the host's time: how long emulating took.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t last) {
  if (!first->reached || !last->reached) return cudaErrorInvalidValue;
  *milliseconds = std::chrono::duration<float, std::milli>(*last->reached - *first->reached).count();
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->capture) return refuse(event->capture, cudaErrorCapturedEvent);
  if (!event->stream) return cudaSuccess;
  return emulated::answer(event->stream, event->num_before, event->refused);
}

cudaError_t cudaGetLastError() { return std::exchange(emulated::last_error, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    default:
      return "invalid value";
  }
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated GPU", 0, 0, 4, emulated::kSharedBytes};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* place, int size, int) {
  std::snprintf(place, static_cast<std::size_t>(size), "emulated");
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
  return bytes <= emulated::kSharedBytes ? cudaSuccess : cudaErrorInvalidValue;
}
