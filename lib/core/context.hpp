#pragma once

#include "core/profile.hpp"
#include "core/thread_pool.hpp"
#include "core/turns.hpp"

namespace switchyard {

enum class Device { kCpu, kCuda };

// Where and with what a kernel runs. Passed to every kernel; owned by the rank's main thread.
struct Context {
  Device device = Device::kCpu;
  ThreadPool* threads = nullptr;  // CPU: never null
  void* stream = nullptr;         // CUDA: a cudaStream_t
  Profile* profile = nullptr;     // null: times are not wanted
  Turns* turns = nullptr;         // with others who go on while the host waits for the device; null: nobody
};

}  // namespace switchyard
