// Maps of either number format, read as float.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "samg/types.h"

namespace samg::cuda {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }

/// Four neighbours of a row, read at once.
template <class T>
struct alignas(4 * sizeof(T)) Quad {
    T values[4];
};

}  // namespace samg::cuda
