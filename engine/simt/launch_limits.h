// How large a grid and a block CUDA launches.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "vector_types.h"

namespace samg::simt {

inline void check_limit(const char* name, std::uint64_t value, std::uint64_t limit) {
    if (value >= 1 && value <= limit) return;
    throw std::invalid_argument(std::string("launch: ") + name + " is " + std::to_string(value) +
                                "; CUDA allows 1 to " + std::to_string(limit));
}

/// Throws std::invalid_argument for what CUDA would refuse.
inline void check_limits(dim3 grid, dim3 block) {
    check_limit("grid.x", grid.x, 0x7fffffff);
    check_limit("grid.y", grid.y, 65535);
    check_limit("grid.z", grid.z, 65535);
    check_limit("block.x", block.x, 1024);
    check_limit("block.y", block.y, 1024);
    check_limit("block.z", block.z, 64);
    check_limit("block.x * block.y * block.z", std::uint64_t{block.x} * block.y * block.z, 1024);
}

}  // namespace samg::simt
