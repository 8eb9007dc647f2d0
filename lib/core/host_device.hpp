// Marks functions that CUDA kernels call, too.
#pragma once

#ifdef __CUDACC__
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif
