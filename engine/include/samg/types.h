// Types of the operations' arguments.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // cudaStream_t points to it; no header of CUDA is needed to include these

namespace samg {

using Stream = CUstream_st*;

/// Number format of an array of real numbers.
enum class Element { float32, float16 };

/// Alignment of a workspace and of each array in it, in bytes.
inline constexpr std::size_t alignment = 64;

/// The non-zero entries of the matrix that resizes one axis: output i is the sum over t < count of
/// weight[t * length + i] times input source[t * length + i]. An output of fewer than `count` inputs repeats its last
/// source with weight 0.
struct Taps {
    int length = 0;
    int count = 0;
    const std::int32_t* source = nullptr;
    const float* weight = nullptr;
};

}  // namespace samg
