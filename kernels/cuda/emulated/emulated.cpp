#undef _FORTIFY_SOURCE  // its longjmp refuses to leave for another stack
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
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

}  // namespace

void set_order(Order new_order) { order = new_order; }
bool others_first() { return order == Order::kBackward; }

void run(unsigned blocks, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body) {
  if (threads == 0 || threads > 1024) stop("a block has 1 to 1024 threads");
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
