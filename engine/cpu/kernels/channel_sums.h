// The pass that reads a map: sums over its channels, from which the cosines of its cells are computed.
#pragma once

#include <string.h>

#include "carver.h"
#include "half.h"
#include "samg/similarity_map.h"

namespace samg::cpu::SAMG_LEVEL {

namespace {

constexpr int tile = 512;        // cells whose sums stay in the first cache
constexpr int most_at_once = 8;  // features

/// Sums over the channels of a map, each (cells,) long.
struct Sums {
    float* dots;     // (count, cells) with each feature
    float* squares;  // of each cell with itself
    float* right;    // with its neighbours; null for a map that is not lifted
    float* down;
    float* down_right;
    float* down_left;
};

Sums carve(const FeatureMap& map, int count, bool lifted, Carver& carver) {
    const size_t cells = static_cast<size_t>(map.grid) * static_cast<size_t>(map.grid);
    Sums sums{};
    sums.dots = carver.take<float>(static_cast<size_t>(count) * cells);
    sums.squares = carver.take<float>(cells);
    if (lifted) {
        sums.right = carver.take<float>(cells);
        sums.down = carver.take<float>(cells);
        sums.down_right = carver.take<float>(cells);
        sums.down_left = carver.take<float>(cells);
    }
    return sums;
}

/// Four channels of a tile's cells as floats; what is missing in the last four is zero.
template <class Number>
struct Channels {
    float buffer[4][tile];
    const float* rows[4];

    void load(const Number* cells, ptrdiff_t plane, int channels, int channel, int first, int count) {
        for (int i = 0; i < 4; ++i) {
            if (channel + i < channels) {
                rows[i] = as_floats(cells + (channel + i) * plane + first, buffer[i], count);
            } else {
                memset(buffer[i], 0, sizeof buffer[i]);
                rows[i] = buffer[i];
            }
        }
    }
};

/// Adds four channels of `count` cells to the dot products with `features` features, and to the cells' squares if these
/// are wanted.
template <int features, bool squared>
void add_dots(const float* const rows[4], int count, const float (&weights)[most_at_once][4], float* __restrict dots,
              float* __restrict squares) {
    const float* __restrict a = rows[0], * __restrict b = rows[1], * __restrict c = rows[2], * __restrict d = rows[3];
    for (int i = 0; i < count; ++i) {
        for (int k = 0; k < features; ++k) {
            dots[k * tile + i] +=
                (a[i] * weights[k][0] + b[i] * weights[k][1]) + (c[i] * weights[k][2] + d[i] * weights[k][3]);
        }
        if (squared) squares[i] += (a[i] * a[i] + b[i] * b[i]) + (c[i] * c[i] + d[i] * d[i]);
    }
}

using AddDots = void (*)(const float* const[4], int, const float (&)[most_at_once][4], float*, float*);

template <bool squared>
constexpr AddDots add_dots_of[most_at_once] = {add_dots<1, squared>, add_dots<2, squared>, add_dots<3, squared>,
                                               add_dots<4, squared>, add_dots<5, squared>, add_dots<6, squared>,
                                               add_dots<7, squared>, add_dots<8, squared>};

/// Dot products of a tile's cells with all features, in chunks, and their squares with the first chunk.
template <class Number>
void sum_tile(const FeatureMap& map, int count, const Number* cells, const float* features, const Sums& sums,
              int first) {
    const ptrdiff_t plane = static_cast<ptrdiff_t>(map.grid) * map.grid;
    const int n = static_cast<int>(plane) - first < tile ? static_cast<int>(plane) - first : tile;
    Channels<Number> channels;
    for (int start = 0; start < count; start += most_at_once) {
        const int chunk = count - start < most_at_once ? count - start : most_at_once;
        float dots[most_at_once * tile], squares[tile];
        memset(dots, 0, sizeof(float) * static_cast<size_t>(chunk) * tile);
        memset(squares, 0, sizeof squares);
        for (int channel = 0; channel < map.channels; channel += 4) {
            channels.load(cells, plane, map.channels, channel, first, n);
            float weights[most_at_once][4] = {};
            for (int k = 0; k < chunk; ++k) {
                const float* feature = features + static_cast<ptrdiff_t>(start + k) * map.channels + channel;
                for (int i = 0; i < 4 && channel + i < map.channels; ++i) weights[k][i] = feature[i];
            }
            (start == 0 ? add_dots_of<true> : add_dots_of<false>)[chunk - 1](channels.rows, n, weights, dots, squares);
        }
        for (int k = 0; k < chunk; ++k) {
            memcpy(sums.dots + (start + k) * plane + first, dots + k * tile, sizeof(float) * static_cast<size_t>(n));
        }
        if (start == 0) memcpy(sums.squares + first, squares, sizeof(float) * static_cast<size_t>(n));
    }
}

constexpr int neighbours = 4;  // right, down, down and right, down and left

/// Cells of a tile and their neighbours in one channel, as floats; only cells whose neighbours are all in the map.
template <class Number>
struct Neighbourhood {
    float buffer[1 + neighbours][tile];
    const float* own;
    const float* others[neighbours];

    void load(const Number* cells, const int (&offsets)[neighbours], int count) {
        own = as_floats(cells, buffer[0], count);
        for (int i = 0; i < neighbours; ++i) others[i] = as_floats(cells + offsets[i], buffer[1 + i], count);
    }
};

/// Adds the products of two channels' cells with their neighbours.
void add_neighbours(const float* a, const float* const b[neighbours], const float* c, const float* const d[neighbours],
                    int count, float* __restrict right, float* __restrict down, float* __restrict down_right,
                    float* __restrict down_left) {
    const float *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3], *d0 = d[0], *d1 = d[1], *d2 = d[2], *d3 = d[3];
    for (int i = 0; i < count; ++i) {
        right[i] += a[i] * b0[i] + c[i] * d0[i];
        down[i] += a[i] * b1[i] + c[i] * d1[i];
        down_right[i] += a[i] * b2[i] + c[i] * d2[i];
        down_left[i] += a[i] * b3[i] + c[i] * d3[i];
    }
}

/// Products of a tile's cells with the cells right of, below and diagonally below them. They are 0 for neighbours
/// beyond the map, and meaningless for those across the end of a row; neither are used.
template <class Number>
void sum_neighbours(const FeatureMap& map, const Number* cells, const Sums& sums, int first) {
    const int plane = map.grid * map.grid, left = plane - first, n = left < tile ? left : tile;
    const int offsets[neighbours] = {1, map.grid, map.grid + 1, map.grid - 1};
    const int inside = left - map.grid - 1 < 0 ? 0 : left - map.grid - 1 < n ? left - map.grid - 1 : n;
    float products[neighbours][tile] = {};
    Neighbourhood<Number> even, odd;
    for (int channel = 0; inside > 0 && channel < map.channels; channel += 2) {
        const Number* here = cells + static_cast<ptrdiff_t>(channel) * plane + first;
        even.load(here, offsets, inside);
        if (channel + 1 < map.channels) {
            odd.load(here + plane, offsets, inside);
        } else {
            memset(odd.buffer, 0, sizeof odd.buffer);
            odd.own = odd.buffer[0];
            for (int i = 0; i < neighbours; ++i) odd.others[i] = odd.buffer[0];
        }
        add_neighbours(even.own, even.others, odd.own, odd.others, inside, products[0], products[1], products[2],
                       products[3]);
    }
    for (int channel = 0; inside < n && channel < map.channels; ++channel) {  // the last cells lack a neighbour
        const Number* here = cells + static_cast<ptrdiff_t>(channel) * plane + first;
        for (int k = 0; k < neighbours; ++k) {
            for (int i = inside; i < n && i + offsets[k] < left; ++i) {
                products[k][i] += to_float(here[i]) * to_float(here[i + offsets[k]]);
            }
        }
    }
    float* const outs[neighbours] = {sums.right, sums.down, sums.down_right, sums.down_left};
    for (int k = 0; k < neighbours; ++k) {
        memcpy(outs[k] + first, products[k], sizeof(float) * static_cast<size_t>(n));
    }
}

int tiles(const FeatureMap& map) { return (map.grid * map.grid + tile - 1) / tile; }

template <class Number>
void sum_map(const FeatureMap& map, int count, int frame, const Sums& sums, int index) {
    const ptrdiff_t cells_per_frame = static_cast<ptrdiff_t>(map.channels) * map.grid * map.grid;
    const Number* cells = static_cast<const Number*>(map.cells) + frame * cells_per_frame;
    const float* features = map.features + frame * map.stride;
    sum_tile(map, count, cells, features, sums, index * tile);
    if (sums.right != nullptr) sum_neighbours(map, cells, sums, index * tile);
}

void sum_map(const FeatureMap& map, int count, int frame, const Sums& sums, int index) {
    if (map.element == Element::float32) {
        sum_map<float>(map, count, frame, sums, index);
    } else {
        sum_map<Half>(map, count, frame, sums, index);
    }
}

}  // namespace

}  // namespace samg::cpu::SAMG_LEVEL
