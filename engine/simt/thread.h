// What the executor knows of a thread, and how it says so.
#pragma once

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>

#include "executor.h"

namespace samg::simt {

class Fibre;

inline constexpr unsigned warp_size = warpSize;

inline constexpr const char* names[] = {"__syncthreads",  "__syncwarp",       "__shfl_sync",
                                        "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
                                        "__ballot_sync",  "__any_sync",       "__all_sync"};

/// A thread of the block that runs.
struct Thread {
    enum class State { fresh, ready, waiting, exited };

    uint3 index{};
    State state = State::fresh;
    Fibre* fibre = nullptr;

    // What it waits for, or waited for last.
    detail::Meeting meeting{};
    unsigned mask = 0;
    detail::Site site{};
    std::uint64_t value = 0;
    unsigned source = 0;
    detail::Exchange received{};
};

/// Whether both stand at the same meeting. __syncthreads must be the same one in the source as well: in a condition,
/// CUDA allows it only where the whole block takes the same branch.
inline bool together(const Thread& a, const Thread& b) {
    return a.state == Thread::State::waiting && b.state == Thread::State::waiting && a.meeting == b.meeting &&
           a.mask == b.mask &&
           (a.meeting != detail::Meeting::syncthreads ||
            (a.site.line == b.site.line && std::strcmp(a.site.file, b.site.file) == 0));
}

inline std::string text(uint3 index) {
    std::ostringstream out;
    out << "(" << index.x << "," << index.y << "," << index.z << ")";
    return out.str();
}

/// What a thread is doing that cannot run.
inline std::string text(const Thread& thread) {
    if (thread.state == Thread::State::exited) return "has exited";
    std::ostringstream out;
    out << "waits at " << names[static_cast<int>(thread.meeting)];
    if (thread.meeting != detail::Meeting::syncthreads) out << " with mask 0x" << std::hex << thread.mask << std::dec;
    out << " (" << thread.site.file << ":" << thread.site.line << ")";
    return out.str();
}

}  // namespace samg::simt
