// What the threads of a block or warp do together. `file` and `line` are the caller's, for messages.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "executor.h"

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    samg::simt::detail::meet_block({file, line});
}

inline void __syncwarp(unsigned mask = 0xffffffff, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    samg::simt::detail::meet_warp(samg::simt::detail::Meeting::syncwarp, mask, 0, 0, {file, line});
}

/// Blocks run one after the other and their threads in turns, so memory is always in order.
inline void __threadfence() {}
inline void __threadfence_block() {}

inline unsigned __ballot_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    return meet_warp(Meeting::ballot, mask, predicate != 0, 0, {file, line}).ballot;
}

inline int __any_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    return meet_warp(Meeting::any, mask, predicate != 0, 0, {file, line}).ballot != 0;
}

inline int __all_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    return meet_warp(Meeting::all, mask, predicate == 0, 0, {file, line}).ballot == 0;
}

namespace samg::simt::detail {

template <class T>
T shuffle(Meeting meeting, unsigned mask, T value, unsigned source, Site site) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 32 and 64-bit numbers");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = meet_warp(meeting, mask, bits, source, site).value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

/// The first lane of the group of `width` lanes that the calling one is in.
inline unsigned group(int width) {
    if (width < 1 || width > warpSize || (width & (width - 1)) != 0) {
        throw std::logic_error("a shuffle's width is " + std::to_string(width) + "; CUDA allows 1, 2, 4, 8, 16 and 32");
    }
    return lane() & ~(static_cast<unsigned>(width) - 1);
}

}  // namespace samg::simt::detail

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    const unsigned from = group(width) | (static_cast<unsigned>(source) & (static_cast<unsigned>(width) - 1));
    return shuffle(Meeting::shfl, mask, value, from, {file, line});
}

// Lanes whose source would lie outside of their group keep their own value, except that __shfl_xor_sync also reaches
// groups before it.

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    const unsigned from = lane() - group(width) >= delta ? lane() - delta : lane();
    return shuffle(Meeting::shfl_up, mask, value, from, {file, line});
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    const unsigned left = group(width) + static_cast<unsigned>(width) - 1 - lane();
    const unsigned from = delta <= left ? lane() + delta : lane();
    return shuffle(Meeting::shfl_down, mask, value, from, {file, line});
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    using namespace samg::simt::detail;
    const unsigned other = lane() ^ static_cast<unsigned>(lane_mask);
    const unsigned from = other < group(width) + static_cast<unsigned>(width) ? other : lane();
    return shuffle(Meeting::shfl_xor, mask, value, from, {file, line});
}
