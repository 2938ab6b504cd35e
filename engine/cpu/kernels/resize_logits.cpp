// The masks of a frame become one map of logits, whose rows are then blended and resized to the frame's.
#include "samg/resize_logits.h"

#include <math.h>
#include <string.h>

#include "carver.h"
#include "half.h"
#include "kernels.h"
#include "parallel.h"
#include "taps.h"

namespace samg::cpu::SAMG_LEVEL {

namespace {

struct Scratch {
    float* settled;  // (side, side), where the caller does not want it
    float* blended;  // (side,)
    float* line;     // (W,), where the caller does not want the logits; and a row of converted logits
};

Scratch carve(const ResizeLogits& arguments, Carver& carver) {
    const size_t side = static_cast<size_t>(arguments.side), width = static_cast<size_t>(arguments.columns.length);
    Scratch scratch;
    scratch.settled = carver.take<float>(arguments.settled == nullptr ? side * side : 0);
    scratch.blended = carver.take<float>(side);
    scratch.line = carver.take<float>(width > side ? width : side);
    return scratch;
}

size_t bytes_per_worker(const ResizeLogits& arguments) {
    Carver carver;
    carve(arguments, carver);
    return carver.bytes();
}

int best_mask(const float* iou, int masks) {
    int best = 0;
    float highest = -INFINITY;
    for (int m = 0; m < masks; ++m) {
        if (iou[m] > highest) best = m, highest = iou[m];
    }
    return best;
}

/// Returns the weighted sum of the masks, or the chosen one, as (side, side) floats.
template <class Number>
const float* settle(const ResizeLogits& arguments, int frame, int chosen, const Scratch& scratch) {
    const int side = arguments.side;
    const ptrdiff_t cells = static_cast<ptrdiff_t>(side) * side;
    const Number* masks = static_cast<const Number*>(arguments.low_res) + frame * arguments.low_res_stride;
    float* settled = arguments.settled == nullptr ? scratch.settled : arguments.settled + frame * cells;
    const float* weights = chosen >= 0 ? nullptr : arguments.weights + static_cast<ptrdiff_t>(frame) * arguments.masks;
    for (int y = 0; y < side; ++y) {
        const ptrdiff_t start = static_cast<ptrdiff_t>(y) * side;
        float* __restrict out = settled + start;
        if (chosen >= 0) {
            memcpy(out, as_floats(masks + chosen * cells + start, scratch.line, side), sizeof(float) * arguments.side);
            continue;
        }
        for (int m = 0; m < arguments.masks; ++m) {
            const float* __restrict row = as_floats(masks + m * cells + start, scratch.line, side);
            const float weight = weights[m];
            if (m == 0) {
                for (int x = 0; x < side; ++x) out[x] = row[x] * weight;
            } else {
                for (int x = 0; x < side; ++x) out[x] += row[x] * weight;
            }
        }
    }
    return settled;
}

/// Counts and bounds the pixels that are set.
struct Extent {
    int32_t area = 0, x_min = INT32_MAX, y_min = INT32_MAX, x_max = -1, y_max = -1;

    void add_row(const uint8_t* mask, int width, int y) {
        int32_t count = 0;
        for (int x = 0; x < width; ++x) count += mask[x];
        if (count == 0) return;
        area += count;
        int first = 0, last = width - 1;
        while (mask[first] == 0) ++first;
        while (mask[last] == 0) --last;
        x_min = first < x_min ? first : x_min;
        x_max = last > x_max ? last : x_max;
        y_min = y < y_min ? y : y_min;
        y_max = y;
    }
};

template <class Number>
void of_frame(const ResizeLogits& arguments, int frame, const Scratch& scratch) {
    const int height = arguments.rows.length, width = arguments.columns.length;
    const ptrdiff_t pixels = static_cast<ptrdiff_t>(height) * width;
    const int chosen =
        arguments.weights == nullptr ? best_mask(arguments.iou + frame * arguments.iou_stride, arguments.masks) : -1;
    const float* settled = settle<Number>(arguments, frame, chosen, scratch);
    Extent extent;
    for (int y = 0; y < height; ++y) {
        float* line = scratch.line;
        if (arguments.logits != nullptr) line = arguments.logits + frame * pixels + static_cast<ptrdiff_t>(y) * width;
        uint8_t* mask = arguments.mask + frame * pixels + static_cast<ptrdiff_t>(y) * width;
        blend_rows(settled, arguments.side, arguments.rows, y, scratch.blended);
        resize_row(scratch.blended, arguments.columns, arguments.columns.weight, 0.f, line);
        for (int x = 0; x < width; ++x) mask[x] = line[x] > 0;
        extent.add_row(mask, width, y);
    }
    arguments.chosen[frame] = chosen;
    arguments.area[frame] = extent.area;
    const int32_t official[4] = {1, 1, width - 1, height - 1};
    const int32_t found[4] = {extent.x_min, extent.y_min, extent.x_max, extent.y_max};
    memcpy(arguments.box + static_cast<ptrdiff_t>(frame) * 4, extent.area == 0 ? official : found, sizeof found);
}

}  // namespace

std::size_t workspace(const ResizeLogits& arguments, int threads) {
    return bytes_per_worker(arguments) * static_cast<size_t>(threads);
}

void resize_logits(const ResizeLogits& arguments, void* memory, int threads) {
    const long long side = arguments.side, masks = arguments.weights == nullptr ? 1 : arguments.masks;
    const long long rows = arguments.rows.length;
    const long long bytes = 4 * arguments.batch * ((masks + 1) * side * side + 3 * rows * side);
    const size_t each = bytes_per_worker(arguments);
    parallel_for(arguments.batch, useful_threads(threads, bytes), [&](int frame, int worker) {
        Carver carver(static_cast<unsigned char*>(memory) + static_cast<size_t>(worker) * each);
        const Scratch scratch = carve(arguments, carver);
        if (arguments.element == Element::float32) {
            of_frame<float>(arguments, frame, scratch);
        } else {
            of_frame<Half>(arguments, frame, scratch);
        }
    });
}

}  // namespace samg::cpu::SAMG_LEVEL
