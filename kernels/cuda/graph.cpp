// Launches recorded once by capturing streams, launched again as one.
#include "kernels/api/graph.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <vector>

#include "core/error.hpp"
#include "kernels/api/memory.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

namespace {

// Page-locked memory that the copies of a graph read.
class KeptCopies {
 public:
  const std::byte* keep(const void* to, const void* from, Index bytes) {
    if (chunks_.empty() || used_ + bytes > chunks_.back().size()) add_chunk(bytes);
    std::byte* const kept = chunks_.back().data() + used_;
    used_ += round_up(bytes, kAlignment);
    std::memcpy(kept, from, static_cast<std::size_t>(bytes));
    copies_.push_back({to, kept, bytes});
    return kept;
  }

  void replace(const void* to, const void* from, Index bytes) {
    const auto is_it = [&](const Copy& copy) { return copy.to == to; };
    const auto copy = std::find_if(copies_.begin(), copies_.end(), is_it);
    if (copy == copies_.end() || copy->bytes != bytes || std::find_if(copy + 1, copies_.end(), is_it) != copies_.end())
      fail("recorded launches: there is no one copy of {} bytes to that address: who replaces it is wrong", bytes);
    std::memcpy(copy->kept, from, static_cast<std::size_t>(bytes));
  }

 private:
  struct Copy {
    const void* to;
    std::byte* kept;
    Index bytes;
  };
  static constexpr Index kChunk = 64 << 10, kAlignment = 64;

  // While a stream is captured CUDA refuses to allocate, unless it is told that this concerns no captured work.
  void add_chunk(Index bytes) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    check(cudaThreadExchangeStreamCaptureMode(&mode), "allocating host memory while launches are recorded");
    chunks_.emplace_back(Device::kCuda, std::max(bytes, kChunk));
    check(cudaThreadExchangeStreamCaptureMode(&mode), "allocating host memory while launches are recorded");
    used_ = 0;
  }

  std::vector<HostArray<std::byte>> chunks_;
  Index used_ = 0;  // of the last chunk
  std::vector<Copy> copies_;
};

KeptCopies* of_recording = nullptr;  // not null: launches are being recorded; one thread uses a device

class CudaGraph final : public Graph {
 public:
  CudaGraph(const Context& context, const std::function<void()>& work) {
    const cudaGraph_t recorded = capture(context, work);
    const cudaError_t error = cudaGraphInstantiate(&graph_, recorded, 0);
    (void)cudaGraphDestroy(recorded);
    check_graph(error, "making a graph of recorded launches");
  }
  ~CudaGraph() override { (void)cudaGraphExecDestroy(graph_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void launch(const Context& context) override {
    check_graph(cudaGraphLaunch(graph_, stream_of(context)), "launch of a graph");
  }
  void replace_copy(const void* to, const void* from, Index bytes) override { copies_.replace(to, from, bytes); }

 private:
  static void check_graph(cudaError_t error, std::string_view what) {
    if (error == cudaErrorMemoryAllocation)
      fail("No memory on the GPU for recorded launches: set compute.graphs = off, or use a smaller train.microbatch.");
    check(error, what);
  }

  // Thread-local: what other threads do with the GPU, those of NCCL for instance, is none of its business.
  cudaGraph_t capture(const Context& context, const std::function<void()>& work) {
    if (of_recording) fail("recorded launches: a recording within another");
    check(cudaStreamBeginCapture(stream_of(context), cudaStreamCaptureModeThreadLocal), "beginning to record launches");
    of_recording = &copies_;
    std::exception_ptr failure;
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
    of_recording = nullptr;
    cudaGraph_t recorded = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream_of(context), &recorded);
    if (failure || error != cudaSuccess) (void)cudaGetLastError();  // else the next launch would be told of it
    if (failure) {
      if (error == cudaSuccess) (void)cudaGraphDestroy(recorded);
      std::rethrow_exception(failure);
    }
    check(error, "recording launches");
    return recorded;
  }

  KeptCopies copies_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace

std::unique_ptr<Graph> record(const Context& context, const std::function<void()>& work) {
  return std::make_unique<CudaGraph>(context, work);
}

bool is_recording() { return of_recording != nullptr; }

void refuse_to_record(std::string_view what) {
  if (is_recording()) fail("{}: not while launches are recorded: what is recorded must not need it", what);
}

const void* keep_for_graph(const void* to, const void* from, Index bytes) {
  return of_recording->keep(to, from, bytes);
}

}  // namespace switchyard::kernels::cuda
