// What the host side of all CUDA operations uses.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <string>
#include <string_view>

#include "core/context.hpp"
#include "core/types.hpp"

namespace switchyard::kernels::cuda {

inline cudaStream_t stream_of(const Context& context) { return static_cast<cudaStream_t>(context.stream); }

// Fails with what CUDA says and what it was asked for.
void check(cudaError_t error, std::string_view what);

// For .cu files, where nvcc does not take fail()'s format strings.
[[noreturn]] void fail_operation(const std::string& message);

// Until ask() no longer says that work is going on. Every wait of the host comes here, so that one can watch them all.
void wait(std::string_view what, const std::function<cudaError_t()>& ask);

// Given to the stream; nothing where `to` is `from`.
void copy_bytes(const Context& context, void* to, const void* from, Index bytes, cudaMemcpyKind kind);
// Of transfers between host and GPU.
void release_staging(void* stream);

// While launches are recorded (graph.cpp) they are not done, so the host can wait for none; and memory that they use
// must stay where it is. Fails then, naming what was asked for.
bool is_recording();
void refuse_to_record(std::string_view what);
// Page-locked memory with these bytes, which lives as long as what is being recorded.
const void* keep_for_graph(const void* to, const void* from, Index bytes);

// Places where kernels of one context run side by side: 0 is the context itself; the others have a stream of their own,
// the same for all contexts. Who gives them work has them wait for the context before, and the context for them after.
constexpr int kMostLanes = 4;
Context lane(const Context& context, int index);

// Device memory for one operation's intermediate results: valid until the next call with the same context, since work
// of a stream is done in order. Grows as needed, then stays; what a recorded launch uses stays in any case.
void* workspace_bytes(const Context& context, Index bytes);
template <typename T>
T* workspace(const Context& context, Index count) {
  return static_cast<T*>(workspace_bytes(context, count * Index{sizeof(T)}));
}

}  // namespace switchyard::kernels::cuda
