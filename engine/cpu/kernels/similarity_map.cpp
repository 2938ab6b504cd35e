// Dot products and squared norms of raw cells first, cosines from them, then the resize chain at the frame's pixels.
//
// DINOv2's map is brought to SAM's grid before its cells are normalised. A lifted cell is a weighted sum of up to four
// cells, so its dot products are sums of theirs, and its squared norm follows from the products of neighbouring cells:
// |a u + b v|^2 = a^2 |u|^2 + b^2 |v|^2 + 2 a b <u, v>. No channel is ever lifted.
#include "samg/similarity_map.h"

#include <math.h>
#include <string.h>

#include "carver.h"
#include "channel_sums.h"
#include "half.h"
#include "kernels.h"
#include "parallel.h"
#include "taps.h"

namespace samg::cpu::SAMG_LEVEL {

namespace {

constexpr float smallest_norm = 1e-12f;
constexpr float cancelled = 1.f / 16;  // a squared norm below this share of its bound is summed again

/// Sums of one row of the DINO map that is lifted along the rows; its cells are u_x.
struct Row {
    float* squares;   // (g,) |u_x|^2
    float* bounds;    // (g,) upper bounds of |u_x|^2
    float* products;  // (g,) <u_x, u_x+1>
    float* dots;      // (count, g)
};

struct Scratch {
    Sums sam, dino;
    float* cosines;  // (count, G, G), summed over both maps
    float* blended;  // (G,)
    Row row;
    float *lifted_squares, *lifted_bounds, *inverse_norms, *zeros;  // (G,)
};

Scratch carve(const SimilarityMap& arguments, Carver& carver) {
    const size_t count = static_cast<size_t>(arguments.count), grid = static_cast<size_t>(arguments.sam.grid);
    Scratch scratch;
    scratch.sam = carve(arguments.sam, arguments.count, false, carver);
    scratch.dino = carve(arguments.dino, arguments.count, arguments.sam.grid != arguments.dino.grid, carver);
    scratch.cosines = carver.take<float>(count * grid * grid);
    scratch.blended = carver.take<float>(grid);
    const size_t dino_grid = static_cast<size_t>(arguments.dino.grid);
    scratch.row.squares = carver.take<float>(dino_grid);
    scratch.row.bounds = carver.take<float>(dino_grid);
    scratch.row.products = carver.take<float>(dino_grid);
    scratch.row.dots = carver.take<float>(count * dino_grid);
    scratch.lifted_squares = carver.take<float>(grid);
    scratch.lifted_bounds = carver.take<float>(grid);
    scratch.inverse_norms = carver.take<float>(grid);
    scratch.zeros = carver.take<float>(grid);
    return scratch;
}

size_t bytes_per_frame(const SimilarityMap& arguments) {
    Carver carver;
    carve(arguments, carver);
    return carver.bytes();
}

inline float inverse_norm(float square) {
    const float norm = sqrtf(square);
    return 1 / (norm > smallest_norm ? norm : smallest_norm);
}

/// One entry of a lift's axis: the two cells it lies between.
struct Between {
    int low, high;
    float low_weight, high_weight;
};

inline Between between(const Taps& lift, int i) {
    const int low = lift.source[i];
    if (lift.count == 1) return {low, low, lift.weight[i], 0};
    return {low, lift.source[lift.length + i], lift.weight[i], lift.weight[lift.length + i]};
}

inline float cell_value(const FeatureMap& map, ptrdiff_t index) {
    if (map.element == Element::float32) return static_cast<const float*>(map.cells)[index];
    return to_float(static_cast<const Half*>(map.cells)[index]);
}

/// Adds the cosines of one lifted cell from its channels, for where the products of neighbours nearly cancel out.
void add_cell_exactly(const SimilarityMap& arguments, int frame, Between row, Between column, float* cosines) {
    const FeatureMap& map = arguments.dino;
    const ptrdiff_t grid = map.grid, plane = grid * grid, start = frame * map.channels * plane;
    const ptrdiff_t out_plane = static_cast<ptrdiff_t>(arguments.sam.grid) * arguments.sam.grid;
    const auto lifted = [&](int channel) {
        const ptrdiff_t base = start + channel * plane;
        const auto along = [&](ptrdiff_t y) {
            const float low = cell_value(map, base + y * grid + column.low) * column.low_weight;
            return low + cell_value(map, base + y * grid + column.high) * column.high_weight;
        };
        return along(row.low) * row.low_weight + along(row.high) * row.high_weight;
    };
    float square = 0;
    for (int channel = 0; channel < map.channels; ++channel) square += lifted(channel) * lifted(channel);
    for (int k = 0; k < arguments.count; ++k) {
        const float* feature = map.features + frame * map.stride + static_cast<ptrdiff_t>(k) * map.channels;
        float dot = 0;
        for (int channel = 0; channel < map.channels; ++channel) dot += lifted(channel) * feature[channel];
        cosines[k * out_plane] += dot * inverse_norm(square);
    }
}

/// Combines squares, products and dots of the rows above and below into those of one lifted row.
void lift_rows(const SimilarityMap& arguments, Between row, const Scratch& scratch) {
    const int grid = arguments.dino.grid;
    const ptrdiff_t plane = static_cast<ptrdiff_t>(grid) * grid;
    const ptrdiff_t above = static_cast<ptrdiff_t>(row.low) * grid, below = static_cast<ptrdiff_t>(row.high) * grid;
    const float a = row.low_weight, b = row.high_weight;
    const Sums& sums = scratch.dino;
    const Row& lifted = scratch.row;
    for (int x = 0; x < grid; ++x) {
        lifted.squares[x] = a * a * sums.squares[above + x];
        lifted.bounds[x] = a * sums.squares[above + x];
    }
    for (int x = 0; x + 1 < grid; ++x) lifted.products[x] = a * a * sums.right[above + x];
    lifted.products[grid - 1] = 0;
    for (int k = 0; k < arguments.count; ++k) {
        for (int x = 0; x < grid; ++x) lifted.dots[k * grid + x] = a * sums.dots[k * plane + above + x];
    }
    if (b == 0) return;
    for (int x = 0; x < grid; ++x) {
        lifted.squares[x] += b * b * sums.squares[below + x] + 2 * a * b * sums.down[above + x];
        lifted.bounds[x] += b * sums.squares[below + x];
    }
    for (int x = 0; x + 1 < grid; ++x) {
        const float across = sums.down_right[above + x] + sums.down_left[above + x + 1];
        lifted.products[x] += b * b * sums.right[below + x] + a * b * across;
    }
    for (int k = 0; k < arguments.count; ++k) {
        for (int x = 0; x < grid; ++x) lifted.dots[k * grid + x] += b * sums.dots[k * plane + below + x];
    }
}

/// Adds the cosines with one row of the lifted map.
void add_lifted_row(const SimilarityMap& arguments, int frame, int y, const Scratch& scratch) {
    const int grid = arguments.dino.grid, out_grid = arguments.sam.grid;
    const ptrdiff_t out_plane = static_cast<ptrdiff_t>(out_grid) * out_grid;
    const Between row = between(arguments.lift, y);
    lift_rows(arguments, row, scratch);
    const Row& lifted = scratch.row;
    const bool mixed = arguments.lift.count > 1;
    const int32_t *low = arguments.lift.source, *high = mixed ? low + out_grid : low;
    const float *low_weight = arguments.lift.weight, *high_weight = mixed ? low_weight + out_grid : scratch.zeros;
    float* out = scratch.cosines + static_cast<ptrdiff_t>(y) * out_grid;
    for (int x = 0; x < out_grid; ++x) {
        const float c = low_weight[x], d = high_weight[x];
        // A cell with weight 0 may be NaN and must not count. By convexity, a lifted square is at most the weighted
        // mean of the squares that it is made of, which is its bound
        const float square = d * d * lifted.squares[high[x]] + 2 * c * d * lifted.products[low[x]];
        const float bound = d * lifted.bounds[high[x]];
        scratch.lifted_squares[x] = c * c * lifted.squares[low[x]] + (d != 0 ? square : 0);
        scratch.lifted_bounds[x] = c * lifted.bounds[low[x]] + (d != 0 ? bound : 0);
    }
    bool all_good = true;
    for (int x = 0; x < out_grid; ++x) {
        const bool good = !(scratch.lifted_squares[x] < cancelled * scratch.lifted_bounds[x]);
        all_good = all_good && good;
        scratch.inverse_norms[x] = good ? inverse_norm(scratch.lifted_squares[x]) : 0;
    }
    for (int k = 0; k < arguments.count; ++k) {
        const float* dots = lifted.dots + k * grid;
        float* to = out + k * out_plane;
        for (int x = 0; x < out_grid; ++x) {
            const float dot = high_weight[x] * dots[high[x]];
            to[x] += (low_weight[x] * dots[low[x]] + (high_weight[x] != 0 ? dot : 0)) * scratch.inverse_norms[x];
        }
    }
    for (int x = 0; !all_good && x < out_grid; ++x) {
        if (scratch.lifted_squares[x] < cancelled * scratch.lifted_bounds[x]) {
            add_cell_exactly(arguments, frame, row, between(arguments.lift, x), out + x);
        }
    }
}

void add_cosines(const SimilarityMap& arguments, int frame, const Scratch& scratch) {
    const int grid = arguments.sam.grid, cells = grid * grid;
    const bool lifted = scratch.dino.right != nullptr;
    memset(scratch.cosines, 0, sizeof(float) * static_cast<size_t>(arguments.count) * static_cast<size_t>(cells));
    const Sums* const both[] = {&scratch.sam, &scratch.dino};
    for (int map = 0; map < (lifted ? 1 : 2); ++map) {
        const Sums* sums = both[map];
        for (int i = 0; i < cells; ++i) sums->squares[i] = inverse_norm(sums->squares[i]);
        for (int k = 0; k < arguments.count; ++k) {
            float* __restrict out = scratch.cosines + static_cast<ptrdiff_t>(k) * cells;
            const float* __restrict dots = sums->dots + static_cast<ptrdiff_t>(k) * cells;
            for (int i = 0; i < cells; ++i) out[i] += dots[i] * sums->squares[i];
        }
    }
    for (int y = 0; lifted && y < grid; ++y) add_lifted_row(arguments, frame, y, scratch);
}

void of_frame(const SimilarityMap& arguments, int frame, const Scratch& scratch, int threads) {
    const int sam_tiles = tiles(arguments.sam), dino_tiles = tiles(arguments.dino);
    parallel_for(sam_tiles + dino_tiles, threads, [&](int item, int) {
        // Tiles of the DINO map first, as they take longer
        if (item < dino_tiles) {
            sum_map(arguments.dino, arguments.count, frame, scratch.dino, item);
        } else {
            sum_map(arguments.sam, arguments.count, frame, scratch.sam, item - dino_tiles);
        }
    });
    memset(scratch.zeros, 0, sizeof(float) * static_cast<size_t>(arguments.sam.grid));
    add_cosines(arguments, frame, scratch);
    const int grid = arguments.sam.grid, height = arguments.rows.length, width = arguments.columns.length;
    for (int k = 0; k < arguments.count; ++k) {
        const float* cosines = scratch.cosines + static_cast<ptrdiff_t>(k) * grid * grid;
        float* out = arguments.out + (static_cast<ptrdiff_t>(frame) * arguments.count + k) * height * width;
        for (int y = 0; y < height; ++y) {
            blend_rows(cosines, grid, arguments.rows, y, scratch.blended);
            for (int x = 0; x < grid; ++x) scratch.blended[x] *= 0.5f;  // the average of both maps
            resize_row(scratch.blended, arguments.columns, arguments.columns.weight, 0.f,
                       out + static_cast<ptrdiff_t>(y) * width);
        }
    }
}

long long bytes_read(const FeatureMap& map) {
    return static_cast<long long>(map.channels) * map.grid * map.grid * (map.element == Element::float32 ? 4 : 2);
}

/// How many frames are processed at once, each by one thread.
int at_once(const SimilarityMap& arguments, int threads) { return arguments.batch < threads ? 1 : threads; }

}  // namespace

std::size_t workspace(const SimilarityMap& arguments, int threads) {
    return bytes_per_frame(arguments) * static_cast<size_t>(at_once(arguments, threads));
}

void similarity_map(const SimilarityMap& arguments, void* memory, int threads) {
    const long long bytes = bytes_read(arguments.sam) + bytes_read(arguments.dino);
    const size_t each = bytes_per_frame(arguments);
    const int frames = at_once(arguments, threads);
    parallel_for(
        arguments.batch, frames == 1 ? 1 : useful_threads(frames, arguments.batch * bytes), [&](int frame, int worker) {
            Carver carver(static_cast<unsigned char*>(memory) + static_cast<size_t>(worker) * each);
            of_frame(arguments, frame, carve(arguments, carver), frames == 1 ? useful_threads(threads, bytes) : 1);
        });
}

}  // namespace samg::cpu::SAMG_LEVEL
