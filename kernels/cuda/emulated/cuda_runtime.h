// As much of CUDA as the kernels here use, on the CPU: for tests on machines without a GPU. Every CUDA thread is a
// fiber; barriers and shuffles switch between them, so a missing barrier shows as a wrong result in one of the orders
// of threads that set_order() chooses. Device memory cannot be touched but by kernels and copies: whatever else reads
// or writes it ends with a segmentation fault, as does what lies behind its end or has been released. Work given to a
// stream is done when somebody waits for it and no earlier, so who does not wait sees what was there before; or, in one
// of the orders, as soon as anybody waits for anything, so that a stream that should have waited does its work too
// early. Not here: memory models, speed.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// One block runs at a time.
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

namespace emulated {

enum class Order { kForward, kBackward, kShuffled };
// In which order the threads of a block, and the blocks, take their turns. With kBackward streams do, too: when the
// host waits for one, the others do all their work first, as far as it does not have to wait.
void set_order(Order order);
bool others_first();

// How often the host has waited for the GPU so far, or may have had to: for a stream or an event, to release memory, or
// with a copy to or from memory that is not page-locked. Streams and events that had work left say only on the second
// question that it is done.
long num_host_waits();

// Kernels, products, copies, fills and graphs that streams have been given so far.
long num_launches();

void give(cudaStream_t stream, std::function<void()> work);

// One launch: body() is called once for each thread. To be part of work that a stream is given.
void run(unsigned blocks, unsigned threads, std::size_t shared_bytes, const std::function<void()>& body);

// Of the thread that runs now.
struct Place {
  dim3 thread, block, block_size, grid_size;
};
extern Place place;

void block_barrier();
// Each thread of the warp gives 8 bytes; returns those of lane `source`, or nonsense where there is no such thread.
std::uint64_t shuffle(std::uint64_t value, unsigned source);
unsigned ballot(bool vote);
unsigned match(std::uint64_t value);  // the lanes that give the same
// What each lane of the warp points to; nobody goes on before all have come.
std::array<const void*, 32> pointers_of_warp(const void* mine);
void* dynamic_shared();

// mma.sync.m16n8k16 of bf16 with fp32 sums, ldmatrix.x4, cvt.rn.bf16x2: registers as PTX lays them out (mma.cuh).
void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
void load_matrices(const void* row, bool transposed, unsigned (&pairs)[4]);
unsigned bf16x2(float low, float high);
void require_alignment(const void* address, std::size_t bytes);

template <typename T>
T shuffle_value(T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulated

#define threadIdx (emulated::place.thread)
#define blockIdx (emulated::place.block)
#define blockDim (emulated::place.block_size)
#define gridDim (emulated::place.grid_size)

inline void __syncthreads() { emulated::block_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulated::ballot(false); }
template <typename T>
T __shfl_sync(unsigned, T value, int source, int = 32) {
  return emulated::shuffle_value(value, static_cast<unsigned>(source) % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return emulated::shuffle_value(value, (emulated::place.thread.x % 32) ^ static_cast<unsigned>(mask));
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int = 32) {
  const unsigned lane = emulated::place.thread.x % 32;
  return emulated::shuffle_value(value, lane + delta < 32 ? lane + delta : lane);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta, int = 32) {
  const unsigned lane = emulated::place.thread.x % 32;
  return emulated::shuffle_value(value, lane >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned, bool vote) { return emulated::ballot(vote); }
inline int __any_sync(unsigned, bool vote) { return emulated::ballot(vote) != 0; }
inline unsigned __match_any_sync(unsigned, int value) { return emulated::match(static_cast<unsigned>(value)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
template <typename T>
T __ldg(const T* from) {
  return *from;
}
// One store of a whole vector: a GPU ends a kernel whose vector is not where its size allows.
template <typename T>
void __stwb(T* to, const T& value) {
  emulated::require_alignment(to, sizeof(T));
  *to = value;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float cospif(float x) { return static_cast<float>(std::cos(3.14159265358979323846 * x)); }
inline float normcdff(float x) { return static_cast<float>(std::erfc(-0.70710678118654752440 * x) / 2); }

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureUnmatched = 903,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorCapturedEvent = 907
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0, cudaEventDefault = 0, cudaEventDisableTiming = 2 };
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t sharedMemPerBlockOptin;
};

cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t last);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetPCIBusId(char* place, int size, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
