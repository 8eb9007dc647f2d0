// How host code gives a kernel to a stream. Kernels are compiled by nvcc, or, without a GPU, by the C++ compiler
// against kernels/cuda/emulated/cuda_runtime.h, which runs them on the CPU for the tests.
#pragma once

#include <string>

#include "kernels/cuda/runtime.hpp"

namespace switchyard::kernels::cuda {

struct LaunchShape {
  Index blocks = 0;        // none: nothing is launched
  int threads = 256;       // of a block
  Index shared_bytes = 0;  // dynamic; above 48 KB the kernel is told so
};

template <typename... Parameters, typename... Arguments>
void launch(const Context& context, const LaunchShape& shape, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (shape.blocks == 0) return;
  constexpr Index kWidestGrid = 0x7fffffff;
  if (shape.blocks > kWidestGrid)
    fail_operation("a kernel of " + std::to_string(shape.blocks) + " blocks is more than a GPU takes: use a smaller " +
                   "train.microbatch");
  const auto grid = static_cast<unsigned>(shape.blocks), block = static_cast<unsigned>(shape.threads);
  const auto shared = static_cast<std::size_t>(shape.shared_bytes);
  // 48 KB need no opting in, but that counts static shared memory too.
  if (shared > 32 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)),
          "shared memory of a kernel");
#ifdef __CUDACC__
  kernel<<<grid, block, shared, stream_of(context)>>>(arguments...);
#else
  emulated::give(stream_of(context), [=] { emulated::run(grid, block, shared, [&] { kernel(arguments...); }); });
#endif
  check(cudaGetLastError(), "launch of a kernel");
}

}  // namespace switchyard::kernels::cuda
