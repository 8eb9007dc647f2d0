// Streams that are captured, and graphs. A graph does its work in the order in which it was captured: one of those that
// its streams' waits allow.
#include <algorithm>
#include <utility>

#include "kernels/cuda/emulated/streams.hpp"

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<std::function<void()>>> work;
};

namespace emulated {

namespace {

cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;
std::shared_ptr<Capture> last_begun;  // a program captures one thing at a time

void end(Capture& capture) {
  for (const cudaStream_t stream : capture.streams) {
    stream->capture.reset();
    stream->num_captured = stream->num_joined = 0;
  }
  last_begun.reset();
}

bool all_joined(const Capture& capture) {
  return std::all_of(capture.streams.begin() + 1, capture.streams.end(),
                     [](cudaStream_t stream) { return stream->num_joined == stream->num_captured; });
}

}  // namespace

void capture_work(cudaStream_t stream, std::function<void()> work) {
  ++stream->num_captured;
  stream->capture->work.push_back(std::move(work));
}

cudaError_t refuse(const std::shared_ptr<Capture>& capture, cudaError_t error) {
  capture->invalid = true;
  return error;
}

bool refuses_memory() {
  const bool refused =
      last_begun && last_begun->mode != cudaStreamCaptureModeRelaxed && mode_of_thread != cudaStreamCaptureModeRelaxed;
  if (refused) last_begun->invalid = true;
  return refused;
}

// A stream that waits for captured work is captured from then on.
cudaError_t capture_wait(cudaStream_t stream, const CUevent_st& event) {
  if (!event.capture) return event.stream ? refuse(stream->capture, cudaErrorStreamCaptureIsolation) : cudaSuccess;
  if (event.capture != last_begun) return cudaErrorInvalidValue;
  if (!stream->capture) {
    stream->capture = event.capture;
    event.capture->streams.push_back(stream);
  }
  ++stream->num_captured;
  if (event.stream != stream) event.stream->num_joined = std::max(event.stream->num_joined, event.num_before);
  return cudaSuccess;
}

}  // namespace emulated

using emulated::known;
using emulated::last_begun;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream || last_begun) return cudaErrorStreamCaptureUnsupported;  // not of the default stream
  last_begun = std::make_shared<emulated::Capture>();
  last_begun->mode = mode;
  last_begun->streams.push_back(stream);
  stream->capture = last_begun;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::shared_ptr<emulated::Capture> capture = known(stream)->capture;
  if (!capture) return cudaErrorInvalidValue;
  if (capture->streams.front() != stream) return refuse(capture, cudaErrorStreamCaptureUnmatched);
  const bool joined = emulated::all_joined(*capture);
  emulated::end(*capture);
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{std::move(capture->work)};
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, emulated::mode_of_thread);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{std::make_shared<std::vector<std::function<void()>>>(graph->work)};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (const auto& capture = known(stream)->capture) return refuse(capture, cudaErrorStreamCaptureUnsupported);
  emulated::give(stream, [work = executable->work] {
    for (const std::function<void()>& each : *work) each();
  });
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
