// Fork-join over the blocks of one kernel. Which thread runs a block never matters to the result: blocks are cut by
// the shape of the work, not by the number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "core/types.hpp"

namespace switchyard {

class ThreadPool {
 public:
  // num_threads counts the caller; 1 starts no thread at all. Fails where the system does not give so many.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(block) for each block in [0, num_blocks), returns when all are done. If one throws, blocks that have not
  // begun are skipped, and the first exception is thrown here once no thread uses body any more.
  template <typename Body>
  void parallel_for(Index num_blocks, const Body& body) {
    if (workers_.empty() || num_blocks <= 1) {
      for (Index block = 0; block < num_blocks; ++block) body(block);
      return;
    }
    run(
        num_blocks, [](const void* b, Index block) { (*static_cast<const Body*>(b))(block); }, &body);
  }

 private:
  using Call = void (*)(const void*, Index);
  void run(Index num_blocks, Call call, const void* body);
  void take_blocks() noexcept;
  void work();
  void stop();

  std::vector<std::thread> workers_;
  Call call_ = nullptr;
  const void* body_ = nullptr;
  Index num_blocks_ = 0;
  std::atomic<Index> next_block_{0};
  std::atomic<int> num_busy_{0};
  std::atomic<std::uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // written by whoever sets failed_
};

}  // namespace switchyard
