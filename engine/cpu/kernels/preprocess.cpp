// One band of output rows at a time. Each source row is resized along its columns once and kept in a ring while later
// output rows need it; output rows are blended from rows of the ring, into three planes.
#include "samg/preprocess.h"

#include "carver.h"
#include "half.h"
#include "kernels.h"
#include "parallel.h"
#include "taps.h"

namespace samg::cpu::SAMG_LEVEL {

namespace {

constexpr int fixed_point_bits = 22;
constexpr int half_unit = 1 << (fixed_point_bits - 1);

/// What a thread needs for one band. A ring row is (3, new width) int32 bytes or floats.
struct Scratch {
    int32_t* planes;     // (3, width): one source row, its channels apart
    int32_t* ring;       // (rows.count, 3, new width)
    int32_t* ring_rows;  // (rows.count,) which source row is where; -1: none
    int32_t* weights;    // (columns.count, new width) in fixed point
    int32_t* sums;       // (new width,)
    float* line;         // (new width,)
};

Scratch carve(const NetworkInput& input, int width, Carver& carver) {
    const size_t new_width = static_cast<size_t>(input.columns.length), rows = static_cast<size_t>(input.rows.count);
    Scratch scratch;
    scratch.planes = carver.take<int32_t>(3 * static_cast<size_t>(width));
    scratch.ring = carver.take<int32_t>(rows * 3 * new_width);
    scratch.ring_rows = carver.take<int32_t>(rows);
    scratch.weights = carver.take<int32_t>(static_cast<size_t>(input.columns.count) * new_width);
    scratch.sums = carver.take<int32_t>(new_width);
    scratch.line = carver.take<float>(new_width);
    return scratch;
}

size_t bytes_per_worker(const Preprocess& arguments) {
    size_t most = 0;
    for (int i = 0; i < arguments.count; ++i) {
        Carver carver;
        carve(arguments.inputs[i], arguments.width, carver);
        most = carver.bytes() > most ? carver.bytes() : most;
    }
    return most;
}

inline int32_t as_byte(int32_t sum) {
    const int32_t byte = sum >> fixed_point_bits;
    return byte < 0 ? 0 : byte > 255 ? 255 : byte;
}

/// Resizes the three channels of a source row along its columns, the way Pillow does.
void columns_fixed(const uint8_t* __restrict pixels, int width, const Taps& taps, const Scratch& scratch,
                   int32_t* __restrict out) {
    int32_t* __restrict planes = scratch.planes;
    for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) planes[c * width + x] = pixels[3 * x + c];
    }
    for (int c = 0; c < 3; ++c) {
        int32_t* __restrict to = out + static_cast<ptrdiff_t>(c) * taps.length;
        resize_row(planes + static_cast<ptrdiff_t>(c) * width, taps, scratch.weights, half_unit, to);
        for (int x = 0; x < taps.length; ++x) to[x] = as_byte(to[x]);
    }
}

void columns_float(const uint8_t* __restrict pixels, int width, const Taps& taps, const float* levels,
                   const Scratch& scratch, float* __restrict out) {
    float* __restrict planes = reinterpret_cast<float*>(scratch.planes);
    for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) planes[c * width + x] = levels[256 * c + pixels[3 * x + c]];
    }
    for (int c = 0; c < 3; ++c) {
        const ptrdiff_t channel = c;
        resize_row(planes + channel * width, taps, taps.weight, 0.f, out + channel * taps.length);
    }
}

/// The ring row of a source row.
inline int32_t* in_ring(const Scratch& scratch, const NetworkInput& input, int row) {
    return scratch.ring + static_cast<ptrdiff_t>(row % input.rows.count) * 3 * input.columns.length;
}

/// Blends ring rows into one row of one channel and looks up the normalised value of each byte.
void rows_fixed(const NetworkInput& input, const Scratch& scratch, int y, int channel, float* __restrict out) {
    const int n = input.columns.length;
    const ptrdiff_t offset = static_cast<ptrdiff_t>(channel) * n;
    const Taps& taps = input.rows;
    int32_t* __restrict sums = scratch.sums;
    for (int t = 0; t < taps.count; ++t) {
        const ptrdiff_t tap = static_cast<ptrdiff_t>(t) * taps.length + y;
        const int32_t* __restrict row = in_ring(scratch, input, taps.source[tap]) + offset;
        const int32_t weight = static_cast<int32_t>(taps.weight[tap]);
        if (t == 0) {
            for (int x = 0; x < n; ++x) sums[x] = half_unit + row[x] * weight;
        } else {
            for (int x = 0; x < n; ++x) sums[x] += row[x] * weight;
        }
    }
    const float* __restrict levels = input.levels + 256 * channel;
    for (int x = 0; x < n; ++x) out[x] = levels[as_byte(sums[x])];
}

void rows_float(const NetworkInput& input, const Scratch& scratch, int y, int channel, float* __restrict out) {
    const int n = input.columns.length;
    const ptrdiff_t offset = static_cast<ptrdiff_t>(channel) * n;
    const Taps& taps = input.rows;
    for (int t = 0; t < taps.count; ++t) {
        const ptrdiff_t tap = static_cast<ptrdiff_t>(t) * taps.length + y;
        const float* __restrict row = reinterpret_cast<float*>(in_ring(scratch, input, taps.source[tap])) + offset;
        const float weight = taps.weight[tap];
        if (t == 0) {
            for (int x = 0; x < n; ++x) out[x] = row[x] * weight;
        } else {
            for (int x = 0; x < n; ++x) out[x] += row[x] * weight;
        }
    }
}

inline float* line_of(float* out, float*) { return out; }
inline float* line_of(Half*, float* line) { return line; }
inline void store(const float*, float*, int) {}  // the line is already part of the output
inline void store(const float* line, Half* out, int count) { to_halves(line, out, count); }

template <class Number>
void band(const Preprocess& arguments, const NetworkInput& input, int frame, int first, int last,
          const Scratch& scratch) {
    const ptrdiff_t side = input.side, width = arguments.width, new_width = input.columns.length;
    const uint8_t* pixels = arguments.frames + static_cast<ptrdiff_t>(frame) * arguments.height * width * 3;
    Number* out = static_cast<Number*>(input.out) + static_cast<ptrdiff_t>(frame) * 3 * side * side;
    for (int t = 0; t < input.rows.count; ++t) scratch.ring_rows[t] = -1;
    if (input.resize == Resize::uint8) {
        const ptrdiff_t weights = static_cast<ptrdiff_t>(input.columns.count) * new_width;
        for (ptrdiff_t i = 0; i < weights; ++i) scratch.weights[i] = static_cast<int32_t>(input.columns.weight[i]);
    }
    for (int y = first; y < last; ++y) {
        if (y >= input.rows.length) {
            for (int c = 0; c < 3; ++c) memset(out + (c * side + y) * side, 0, sizeof(Number) * input.side);
            continue;
        }
        for (int t = 0; t < input.rows.count; ++t) {
            const int row = input.rows.source[static_cast<ptrdiff_t>(t) * input.rows.length + y];
            if (scratch.ring_rows[row % input.rows.count] == row) continue;
            scratch.ring_rows[row % input.rows.count] = row;
            int32_t* to = in_ring(scratch, input, row);
            if (input.resize == Resize::uint8) {
                columns_fixed(pixels + row * width * 3, arguments.width, input.columns, scratch, to);
            } else {
                columns_float(pixels + row * width * 3, arguments.width, input.columns, input.levels, scratch,
                              reinterpret_cast<float*>(to));
            }
        }
        for (int c = 0; c < 3; ++c) {
            Number* row = out + (c * side + y) * side;
            float* line = line_of(row, scratch.line);
            if (input.resize == Resize::uint8) {
                rows_fixed(input, scratch, y, c, line);
            } else {
                rows_float(input, scratch, y, c, line);
            }
            store(line, row, input.columns.length);
            memset(row + new_width, 0, sizeof(Number) * static_cast<size_t>(side - new_width));
        }
    }
}

long long bytes_written(const Preprocess& arguments) {
    long long bytes = 0;
    for (int i = 0; i < arguments.count; ++i) {
        const long long side = arguments.inputs[i].side;
        bytes += arguments.batch * 3 * side * side * (arguments.inputs[i].element == Element::float32 ? 4 : 2);
    }
    return bytes;
}

}  // namespace

std::size_t workspace(const Preprocess& arguments, int threads) {
    return bytes_per_worker(arguments) * static_cast<size_t>(threads);
}

void preprocess(const Preprocess& arguments, void* memory, int threads) {
    // A few more bands than threads, so that no thread waits long for the others; each band fills a ring of its own.
    const int used = useful_threads(threads, bytes_written(arguments));
    const int bands = used == 1 ? 1 : 2 * used;
    const size_t bytes = bytes_per_worker(arguments);
    parallel_for(arguments.batch * arguments.count * bands, used, [&](int item, int worker) {
        const NetworkInput& input = arguments.inputs[item / bands % arguments.count];
        const int frame = item / bands / arguments.count, part = item % bands;
        const int first = static_cast<int>(static_cast<long long>(input.side) * part / bands);
        const int last = static_cast<int>(static_cast<long long>(input.side) * (part + 1) / bands);
        Carver carver(static_cast<unsigned char*>(memory) + static_cast<size_t>(worker) * bytes);
        const Scratch scratch = carve(input, arguments.width, carver);
        if (input.element == Element::float32) {
            band<float>(arguments, input, frame, first, last, scratch);
        } else {
            band<Half>(arguments, input, frame, first, last, scratch);
        }
    });
}

}  // namespace samg::cpu::SAMG_LEVEL
