// Errors in a fork-join: thrown where the work was asked for, and the threads stay fit for the next one.
#include "core/thread_pool.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <new>
#include <thread>

#include "core/error.hpp"

namespace switchyard::testing {
namespace {

constexpr Index kBlocks = 1000;

void expect_all_blocks_run(ThreadPool& pool) {
  std::atomic<Index> sum = 0;
  pool.parallel_for(kBlocks, [&](Index block) { sum += block; });
  EXPECT_EQ(sum, kBlocks * (kBlocks - 1) / 2);
}

TEST(ThreadPool, AnExceptionOnAnyThreadReachesTheCaller) {
  ThreadPool pool(4);
  const auto caller = std::this_thread::get_id();
  for (const bool on_caller : {true, false}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::atomic<bool> thrown = false;
      const auto body = [&](Index) {
        if ((std::this_thread::get_id() == caller) == on_caller) {
          thrown = true;
          throw std::bad_alloc();
        }
        while (!thrown) std::this_thread::yield();
      };
      EXPECT_THROW(pool.parallel_for(kBlocks, body), std::bad_alloc);
      expect_all_blocks_run(pool);
    }
  }
}

TEST(ThreadPool, NoBlockRunsAfterAnExceptionHasLeft) {
  ThreadPool pool(4);
  const auto caller = std::this_thread::get_id();
  std::atomic<int> num_inside = 0;
  std::atomic<Index> num_begun = 0;
  const auto body = [&](Index) {
    ++num_begun;
    if (std::this_thread::get_id() == caller) {
      while (num_inside == 0) std::this_thread::yield();
      throw Error("from the caller's own block");
    }
    ++num_inside;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    --num_inside;
  };
  EXPECT_THROW(pool.parallel_for(kBlocks, body), Error);
  EXPECT_EQ(num_inside, 0);
  EXPECT_LT(num_begun, 20) << "blocks that had not begun are skipped";
}

TEST(ThreadPool, TheFirstOfSeveralExceptionsIsThrown) {
  ThreadPool pool(2);
  std::atomic<bool> first_thrown = false;
  const auto body = [&](Index block) {
    if (block == 1) {
      first_thrown = true;
      throw Error("block 1");
    }
    while (!first_thrown) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    throw Error("block 0");
  };
  try {
    pool.parallel_for(2, body);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "block 1");
  }
  expect_all_blocks_run(pool);
}

// Leaves this process little room for stacks, asks for many threads, and exits 0 where that fails as it should.
[[noreturn]] void ask_for_too_many_threads() {
  Index pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t room = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)) + (rlim_t{64} << 20);
  const rlimit limit{room, room};
  setrlimit(RLIMIT_AS, &limit);
  try {
    const ThreadPool pool(4096);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    _exit(0);
  }
  _exit(1);
}

TEST(ThreadPoolDeathTest, TooManyThreadsAreAnErrorThatNamesTheKey) {
  EXPECT_EXIT(ask_for_too_many_threads(), ::testing::ExitedWithCode(0),
              "parallel.threads = 4096: only [0-9]+ threads could be started .*smaller number");
}

}  // namespace
}  // namespace switchyard::testing
