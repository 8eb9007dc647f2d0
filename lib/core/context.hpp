#pragma once

#include "core/profile.hpp"
#include "core/thread_pool.hpp"

namespace switchyard {

enum class Device { kCpu, kCuda };

// Where and with what a kernel runs. Passed to every kernel; owned by the rank's main thread.
struct Context {
  Device device = Device::kCpu;
  ThreadPool* threads = nullptr;  // CPU: never null
  void* stream = nullptr;         // CUDA: a cudaStream_t
  Profile* profile = nullptr;     // null: times are not wanted
};

}  // namespace switchyard
