// Starts kernels: on a device, or, compiled by a host's compiler, in the SIMT executor.
#pragma once

#include <cuda_runtime.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "samg/types.h"
#ifndef __CUDACC__
#include "simt/executor.h"
#endif

namespace samg::cuda {

/// How many pieces of `size` cover `count`.
constexpr std::size_t pieces(std::size_t count, std::size_t size) { return (count + size - 1) / size; }

/// Starts the kernels of one operation. Grids are one-dimensional, as only x may pass 65,535 blocks.
struct Launcher {
    const char* operation;
    Stream stream;

    template <class... Parameters, class... Arguments>
    void operator()(void (*kernel)(Parameters...), std::size_t blocks, int threads,
                    const Arguments&... arguments) const {
        if (blocks == 0) return;
        if (blocks > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
            throw std::runtime_error(std::string(operation) + ": more blocks than a grid can have, " +
                                     std::to_string(blocks));
        }
        const dim3 grid(static_cast<unsigned>(blocks)), block(static_cast<unsigned>(threads));
#ifdef __CUDACC__
        kernel<<<grid, block, 0, stream>>>(arguments...);
        const cudaError_t error = cudaGetLastError();
        if (error != cudaSuccess) {
            throw std::runtime_error(std::string(operation) + ": " + cudaGetErrorName(error) + ", " +
                                     cudaGetErrorString(error));
        }
#else
        simt::launch(kernel, grid, block, arguments...);
#endif
    }
};

}  // namespace samg::cuda
