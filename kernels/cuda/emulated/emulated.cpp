#undef _FORTIFY_SOURCE  // its longjmp refuses to leave for another stack
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include <cuda_runtime.h>

namespace emulated {

Place place;

namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kStackBytes = 256 << 10;

[[noreturn]] void stop(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s\n", why);
  std::abort();
}

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

// A fiber runs CUDA threads one after the other; it is only where one waits that another fiber is needed. It begins by
// setcontext(); later switches are jumps, which make no system call.
struct Fiber {
  ucontext_t start;
  jmp_buf place;
  bool begun = false;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStackBytes);
};

struct Thread {
  State state = State::kReady;
  Fiber* fiber = nullptr;  // null: not begun
  std::uint64_t given = 0;
  bool vote = false;
};

struct Launch {
  const std::function<void()>* body = nullptr;
  std::vector<Thread> threads;
  std::vector<unsigned> turns;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> idle;
  jmp_buf scheduler;
  unsigned current = 0;
  std::vector<char> shared;
};
Launch now;
Order order = Order::kForward;

// Until the scheduler comes back to it.
void leave(Fiber* fiber) {
  if (_setjmp(fiber->place) == 0) _longjmp(now.scheduler, 1);
}

void enter(Fiber* fiber) {
  if (_setjmp(now.scheduler) != 0) return;
  if (fiber->begun) _longjmp(fiber->place, 1);
  fiber->begun = true;
  setcontext(&fiber->start);
}

void fiber_main() {
  for (;;) {
    Fiber* fiber = now.threads[now.current].fiber;
    (*now.body)();
    now.threads[now.current].state = State::kDone;
    now.idle.push_back(fiber);
    leave(fiber);
  }
}

Fiber* take_fiber() {
  if (now.idle.empty()) {
    now.fibers.push_back(std::make_unique<Fiber>());
    Fiber* fiber = now.fibers.back().get();
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    fiber->start.uc_stack.ss_size = kStackBytes;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, fiber_main, 0);
    now.idle.push_back(fiber);
  }
  Fiber* fiber = now.idle.back();
  now.idle.pop_back();
  return fiber;
}

void resume(unsigned thread) {
  Thread& t = now.threads[thread];
  if (!t.fiber) t.fiber = take_fiber();
  now.current = thread;
  place.thread = {thread, 0, 0};
  enter(t.fiber);
}

void wait(State state) {
  Thread& t = now.threads[now.current];
  t.state = state;
  const dim3 thread = place.thread;
  leave(t.fiber);
  place.thread = thread;
}

// Threads [first, end) that are not done all wait in `state`: they go on.
bool release(State state, unsigned first, unsigned end) {
  const auto begin = now.threads.begin() + first, stop_at = now.threads.begin() + end;
  if (!std::any_of(begin, stop_at, [&](const Thread& t) { return t.state == state; }) ||
      !std::all_of(begin, stop_at, [&](const Thread& t) { return t.state == state || t.state == State::kDone; }))
    return false;
  for (auto t = begin; t != stop_at; ++t)
    if (t->state == state) t->state = State::kReady;
  return true;
}

std::vector<unsigned> turns_of(unsigned count) {
  std::vector<unsigned> turns(count);
  std::iota(turns.begin(), turns.end(), 0u);
  if (order == Order::kBackward) std::reverse(turns.begin(), turns.end());
  if (order == Order::kShuffled) std::shuffle(turns.begin(), turns.end(), std::minstd_rand(count));
  return turns;
}

void run_block() {
  const auto count = static_cast<unsigned>(now.threads.size());
  std::fill(now.threads.begin(), now.threads.end(), Thread{});
  std::fill(now.shared.begin(), now.shared.end(), static_cast<char>(0xff));  // NaN
  for (;;) {
    bool any = false;
    for (const unsigned thread : now.turns) {
      if (now.threads[thread].state != State::kReady) continue;
      any = true;
      resume(thread);
    }
    if (any) continue;
    bool released = release(State::kAtBlockBarrier, 0, count);
    for (unsigned first = 0; first < count; first += kWarp)
      released |= release(State::kAtWarpBarrier, first, std::min(first + kWarp, count));
    if (released) continue;
    if (std::all_of(now.threads.begin(), now.threads.end(), [](const Thread& t) { return t.state == State::kDone; }))
      return;
    stop("threads of a block wait at different barriers for ever");
  }
}

// Device memory by its first byte.
struct Memory {
  std::byte* pages;
  std::size_t bytes;
};
std::map<void*, Memory> memories;

// Page-locked host memory: the end of each array by its first byte. Never released itself, since static objects of
// others release memory when the program ends.
std::map<const std::byte*, const std::byte*>& page_locked() {
  static auto* const arrays = new std::map<const std::byte*, const std::byte*>;
  return *arrays;
}

bool is_page_locked(const void* pointer) {
  const auto* byte = static_cast<const std::byte*>(pointer);
  const auto next = page_locked().upper_bound(byte);
  return next != page_locked().begin() && byte < std::prev(next)->second;
}

long host_waits = 0;
cudaError_t last_error = cudaSuccess;

// While one lives, device memory can be touched.
class Access {
 public:
  Access() { protect(PROT_READ | PROT_WRITE); }
  ~Access() { protect(PROT_NONE); }

 private:
  static void protect(int how) {
    for (const auto& [pointer, memory] : memories) mprotect(memory.pages, memory.bytes, how);
  }
};

}  // namespace

void set_order(Order new_order) { order = new_order; }

long num_host_waits() { return host_waits; }

void run(unsigned blocks, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body) {
  if (threads == 0 || threads > 1024) stop("a block has 1 to 1024 threads");
  const Access access;
  now.body = &body;
  now.threads.resize(threads);
  now.shared.resize(shared_bytes + 16);
  now.turns = turns_of(threads);
  place.block_size = {threads, 1, 1};
  place.grid_size = {blocks, 1, 1};
  for (const unsigned block : turns_of(blocks)) {
    place.block = {block, 0, 0};
    run_block();
  }
}

void block_barrier() { wait(State::kAtBlockBarrier); }

std::uint64_t shuffle(std::uint64_t value, unsigned source) {
  const unsigned first = now.current / kWarp * kWarp;
  now.threads[now.current].given = value;
  wait(State::kAtWarpBarrier);
  const std::size_t from = first + source % kWarp;
  const std::uint64_t found = from < now.threads.size() ? now.threads[from].given : ~std::uint64_t{0};
  wait(State::kAtWarpBarrier);
  return found;
}

unsigned match(std::uint64_t value) {
  const unsigned first = now.current / kWarp * kWarp;
  now.threads[now.current].given = value;
  wait(State::kAtWarpBarrier);
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < kWarp && first + lane < now.threads.size(); ++lane)
    if (now.threads[first + lane].state != State::kDone && now.threads[first + lane].given == value)
      lanes |= 1u << lane;
  wait(State::kAtWarpBarrier);
  return lanes;
}

unsigned ballot(bool vote) {
  const unsigned first = now.current / kWarp * kWarp;
  now.threads[now.current].vote = vote;
  wait(State::kAtWarpBarrier);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kWarp && first + lane < now.threads.size(); ++lane)
    if (now.threads[first + lane].state != State::kDone && now.threads[first + lane].vote) votes |= 1u << lane;
  wait(State::kAtWarpBarrier);
  return votes;
}

std::array<const void*, kWarp> pointers_of_warp(const void* mine) {
  const unsigned first = now.current / kWarp * kWarp;
  if (now.threads.size() - first < kWarp) stop("a warp that is not whole multiplies matrices");
  now.threads[now.current].given = reinterpret_cast<std::uintptr_t>(mine);
  wait(State::kAtWarpBarrier);
  std::array<const void*, kWarp> all;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (now.threads[first + lane].state == State::kDone)
      stop("a lane has ended that its warp multiplies matrices with");
    all[lane] = reinterpret_cast<const void*>(now.threads[first + lane].given);
  }
  return all;
}

void* dynamic_shared() {
  return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(now.shared.data()) + 15) / 16 * 16);
}

}  // namespace emulated

using emulated::Access;
using emulated::host_waits;
using emulated::memories;

// The last byte lies as near to the end of its last page as an alignment of 256 bytes allows.
cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
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
  ++host_waits;
  const auto found = memories.find(pointer);
  if (found == memories.end()) return cudaErrorInvalidValue;
  munmap(found->second.pages, found->second.bytes + static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
  memories.erase(found);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  *pointer = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!*pointer) return cudaErrorMemoryAllocation;
  const auto* first = static_cast<const std::byte*>(*pointer);
  emulated::page_locked()[first] = first + bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  ++host_waits;
  emulated::page_locked().erase(static_cast<const std::byte*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const void* host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
  if (host && !emulated::is_page_locked(host)) ++host_waits;
  const Access access;
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t) {
  const Access access;
  std::memset(pointer, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) {
  static bool asked = false;
  asked = !asked;
  host_waits += asked;
  if (asked) return emulated::last_error = cudaErrorNotReady;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaStreamQuery(nullptr); }
cudaError_t cudaGetLastError() { return std::exchange(emulated::last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "invalid value";
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
  *properties = {"emulated GPU", 0, 0, 4, 227 << 10};
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* place, int size, int) {
  std::snprintf(place, static_cast<std::size_t>(size), "emulated");
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
