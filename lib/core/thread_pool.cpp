#include "core/thread_pool.hpp"

#include <immintrin.h>

#include <new>
#include <system_error>
#include <utility>

#include "core/error.hpp"

namespace switchyard {

namespace {

// A kernel's blocks last tens of microseconds: spin about that long, then let the kernel wake us, so that more
// threads than cores still make progress.
constexpr int kSpins = 2000;

template <typename T>
void wait_while_equal(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  std::string reason;
  try {
    for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { work(); });
    return;
  } catch (const std::system_error& error) {
    reason = error.code().message();
  } catch (const std::bad_alloc&) {
    reason = "not enough memory";
  }
  stop();
  fail(
      "parallel.threads = {}: only {} threads could be started ({}); give a smaller number, or raise the limits on "
      "processes and memory (ulimit -u, ulimit -v)",
      num_threads, workers_.size() + 1, reason);
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(Index num_blocks, Call call, const void* body) {
  call_ = call;
  body_ = body;
  num_blocks_ = num_blocks;
  next_block_.store(0, std::memory_order_relaxed);
  num_busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  take_blocks();
  for (int busy = num_busy_.load(std::memory_order_acquire); busy != 0;
       busy = num_busy_.load(std::memory_order_acquire))
    wait_while_equal(num_busy_, busy);
  if (!failed_.exchange(false)) return;
  std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::take_blocks() noexcept {
  try {
    for (Index block = next_block_++; block < num_blocks_; block = next_block_++) call_(body_, block);
  } catch (...) {
    next_block_ = num_blocks_;
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

void ThreadPool::work() {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while_equal(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_) return;
    take_blocks();
    if (num_busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_busy_.notify_one();
  }
}

}  // namespace switchyard
