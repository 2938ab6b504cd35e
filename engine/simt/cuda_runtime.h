// Stands in for CUDA's header of the same name where kernels are compiled for the host: see executor.h.
#pragma once

#include "atomics.h"
#include "collectives.h"
#include "executor.h"
#include "intrinsics.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...)

// One block runs at a time, so one variable serves all blocks. Each block finds in it what the one before has left: a
// kernel that reads before it writes does not read zeros, except in the first block of all. Kernels belong in unnamed
// namespaces: gcc's AddressSanitizer leaves the static variables of templates and inline functions of others unguarded.
#define __shared__ static

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess = 0 };

// What goes wrong here is thrown.
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaSuccess"; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
