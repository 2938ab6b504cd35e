// What the operations' arguments are made of.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // cudaStream_t points to it; no header of CUDA is needed to include these

namespace samg {

using Stream = CUstream_st*;

/// Number format of an array of real numbers.
enum class Element { float32, float16 };

/// How far apart the pieces of a workspace are, and how its beginning must be aligned, in bytes.
inline constexpr std::size_t alignment = 64;

/// One axis of a resize by what is not zero in its matrix: entry i of the result is the sum over t < count of entry
/// source[t * length + i] times weight[t * length + i]. Where an entry needs fewer than `count`, its last source is
/// repeated with weight 0.
struct Taps {
    int length = 0;
    int count = 0;
    const std::int32_t* source = nullptr;
    const float* weight = nullptr;
};

}  // namespace samg
