// Streams and events of the emulated GPU, and what the parts of its runtime ask of each other.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include <cuda_runtime.h>

namespace emulated {

// Work that goes into a graph in place of being done.
struct Capture {
  std::vector<std::function<void()>> work;
  std::vector<cudaStream_t> streams;  // the first is where it began
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalid = false;  // something was asked that a capture does not permit
};

}  // namespace emulated

struct CUstream_st {
  std::deque<std::function<void()>> work;  // what has been given to it and not been done
  long num_done = 0;
  bool refused = false;  // the last question about it was answered by "not ready"

  std::shared_ptr<emulated::Capture> capture;  // null: there is none
  long num_captured = 0, num_joined = 0;       // its work and waits; how much of that another stream waits for
};

struct CUevent_st {
  using Clock = std::chrono::steady_clock;

  std::shared_ptr<Clock::time_point> reached;  // null: not timed
  cudaStream_t stream = nullptr;               // null: not recorded
  long num_before = 0;                         // how much of the stream's work came before it
  bool refused = false;
  std::shared_ptr<emulated::Capture> capture;  // not null: a place in that
};

namespace emulated {

// The default stream where it is null.
cudaStream_t known(cudaStream_t stream);

void capture_work(cudaStream_t stream, std::function<void()> work);
cudaError_t capture_wait(cudaStream_t stream, const CUevent_st& event);
// Makes the capture invalid; returns the error.
cudaError_t refuse(const std::shared_ptr<Capture>& capture, cudaError_t error);
// Whether memory may neither be had nor given back, since a stream is captured; that makes the capture invalid.
bool refuses_memory();

}  // namespace emulated
