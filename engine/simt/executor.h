// Runs CUDA kernels, compiled as ordinary C++, on the host: one fibre per thread of a block, one block after the other.
//
// What it is for is finding faults, by itself and under sanitizers: barriers and warp operations that not all threads
// reach end with an error that says who waits for whom, and missing ones show as results that change with `set_order`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>

#include "vector_types.h"

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

namespace samg::simt {

/// In which order the threads of a block run from one synchronisation to the next, and the blocks of a grid.
enum class Order { forward, backward, shuffled };

/// Holds for all launches to come. Shuffled launches with the same seed run in the same order.
void set_order(Order order, std::uint64_t seed = 0);

/// Runs the kernel and returns when all of it is done. From whatever thread it is called, one launch runs at a time.
///
/// Throws std::invalid_argument for a grid or block that CUDA would not launch; std::logic_error for a barrier or warp
/// operation that some of its threads never reach, or a misaligned atomic; and whatever the kernel throws. The
/// arguments are converted as in a call of the kernel, whose parameters alone say what types they have.
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, typename std::decay<Parameters>::type... arguments);

namespace detail {

/// Where in the kernel's source an operation is called.
struct Site {
    const char* file;
    int line;
};

/// What threads can wait for each other at.
enum class Meeting { syncthreads, syncwarp, shfl, shfl_up, shfl_down, shfl_xor, ballot, any, all };

/// What a lane takes away from a meeting of its warp.
struct Exchange {
    std::uint64_t value;  // the one that the lane `source` brought
    unsigned ballot;      // lanes that took part and brought something else than 0
};

void run(dim3 grid, dim3 block, const std::function<void()>& thread);

/// Waits until all threads of the block are here.
void meet_block(Site site);

/// Waits until all lanes in `mask` are at the same operation with the same mask. Lanes that a last, partial warp lacks
/// are not waited for; what comes from them or from lanes outside of the mask is rubbish.
Exchange meet_warp(Meeting meeting, unsigned mask, std::uint64_t value, unsigned source, Site site);

/// The calling thread's place in its warp.
unsigned lane();

/// Throws unless an atomic operation can work at the address.
void check_aligned(const void* address, std::size_t size);

}  // namespace detail

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, typename std::decay<Parameters>::type... arguments) {
    const std::tuple<Parameters...> copied(arguments...);
    detail::run(grid, block, [&] { std::apply(kernel, copied); });
}

}  // namespace samg::simt
