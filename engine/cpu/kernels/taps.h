// Resizing one row, and several rows into one.
#pragma once

#include "samg/types.h"

namespace samg::cpu::SAMG_LEVEL {

/// out[i] = sum over taps of row[source] * weight, from `start`. Whole numbers or floats.
template <class Number, class Weight>
static void resize_row(const Number* __restrict row, const Taps& taps, const Weight* __restrict weight, Number start,
                       Number* __restrict out) {
    const ptrdiff_t n = taps.length;
    const int32_t* __restrict source = taps.source;
    if (taps.count == 2) {  // frames that are enlarged
        for (ptrdiff_t i = 0; i < n; ++i)
            out[i] = start + row[source[i]] * weight[i] + row[source[n + i]] * weight[n + i];
    } else if (taps.count == 3) {  // most similarity maps and logits
        for (ptrdiff_t i = 0; i < n; ++i) {
            out[i] = start + row[source[i]] * weight[i] + row[source[n + i]] * weight[n + i] +
                     row[source[2 * n + i]] * weight[2 * n + i];
        }
    } else {
        for (ptrdiff_t i = 0; i < n; ++i) {
            Number sum = start;
            for (ptrdiff_t t = 0; t < taps.count; ++t) sum += row[source[t * n + i]] * weight[t * n + i];
            out[i] = sum;
        }
    }
}

/// out = sum over taps of entry y of the rows (each `width` long, one after the other) * weight.
static inline void blend_rows(const float* rows, int width, const Taps& taps, int y, float* __restrict out) {
    for (int t = 0; t < taps.count; ++t) {
        const ptrdiff_t tap = static_cast<ptrdiff_t>(t) * taps.length + y;
        const float* __restrict row = rows + static_cast<ptrdiff_t>(taps.source[tap]) * width;
        const float weight = taps.weight[tap];
        if (t == 0) {
            for (int x = 0; x < width; ++x) out[x] = row[x] * weight;
        } else if (weight != 0) {  // 0 * infinity would be NaN
            for (int x = 0; x < width; ++x) out[x] += row[x] * weight;
        }
    }
}

}  // namespace samg::cpu::SAMG_LEVEL
