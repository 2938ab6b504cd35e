// The k largest or smallest values of each map, inside a box.
#pragma once

#include "samg/types.h"

namespace samg {

/// Maximum of `k`.
inline constexpr int most_points = 64;

/// Points come best first, and those of equal values in row-major order. NaN counts as minus infinity. If the box holds
/// fewer than k pixels, the rest of the points are (0, 0).
struct TopkPoints {
    int batch = 0, height = 0, width = 0;
    const float* values = nullptr;        // (height, width) of each map
    std::ptrdiff_t value_stride = 0;      // elements from one map to the next
    const std::int32_t* boxes = nullptr;  // (batch, 4): x0, y0, x1, y1, half open, may reach beyond the map or be
                                          // empty; null: the whole map
    int k = 1;
    bool largest = true;
    std::int32_t* points = nullptr;   // (k, 2), as (x, y), of each map
    std::ptrdiff_t point_stride = 0;  // elements from one map's points to the next one's
};

namespace cpu {
std::size_t workspace(const TopkPoints&, int threads);
void topk_points(const TopkPoints&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const TopkPoints&);
void topk_points(const TopkPoints&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
