// One pixel of a resized map.
#pragma once

#include "element.cuh"

namespace samg::cuda {

/// Taps of one entry, four at a time: as many as SAM's chains have.
struct TapQuad {
    int source[4];
    float weight[4];
};

__device__ inline TapQuad tap_quad(const Taps& taps, int entry, int first) {
    TapQuad quad;
    for (int t = 0; t < 4; ++t) {
        const std::size_t at = static_cast<std::size_t>(first + t) * taps.length + entry;
        const bool there = first + t < taps.count;
        quad.source[t] = there ? taps.source[at] : 0;
        quad.weight[t] = there ? taps.weight[at] : 0;
    }
    return quad;
}

/// Pixel (x, y) of a map `width` wide, resized by the taps of both axes. Sixteen reads are in flight at a time; an
/// entry with weight 0 is not read, as it need not be finite.
template <class T>
__device__ float resample(const T* __restrict__ map, int width, const Taps& rows, const Taps& columns, int y, int x) {
    float sum = 0;
    for (int first_row = 0; first_row < rows.count; first_row += 4) {
        const TapQuad row = tap_quad(rows, y, first_row);
        for (int first_column = 0; first_column < columns.count; first_column += 4) {
            const TapQuad column = tap_quad(columns, x, first_column);
            for (int r = 0; r < 4; ++r) {
                float across = 0;
                for (int c = 0; c < 4; ++c) {
                    const bool counts = row.weight[r] != 0 && column.weight[c] != 0;
                    const float value = counts ? to_float(map[row.source[r] * width + column.source[c]]) : 0.0f;
                    across += column.weight[c] * value;
                }
                sum += row.weight[r] * across;
            }
        }
    }
    return sum;
}

}  // namespace samg::cuda
