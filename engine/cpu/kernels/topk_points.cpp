// One pass over the box, row by row. A row whose best value is not better than the worst point kept is skipped.
#include "samg/topk_points.h"

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "parallel.h"

namespace samg::cpu::SAMG_LEVEL {

namespace {

constexpr int lanes = 32;

/// The rank of a value: higher is better.
template <bool largest>
inline float rank(float value) {
    const float clean = value == value ? value : -INFINITY;
    return largest ? clean : -clean;
}

template <bool largest>
float best_of_row(const float* row, int count) {
    float best = -INFINITY;
    int x = 0;
    if (count >= lanes) {
        float lane[lanes];
        for (int i = 0; i < lanes; ++i) lane[i] = -INFINITY;
        for (; x + lanes <= count; x += lanes) {
            for (int i = 0; i < lanes; ++i) {
                const float value = rank<largest>(row[x + i]);
                lane[i] = value > lane[i] ? value : lane[i];
            }
        }
        for (int i = 0; i < lanes; ++i) best = lane[i] > best ? lane[i] : best;
    }
    for (; x < count; ++x) best = rank<largest>(row[x]) > best ? rank<largest>(row[x]) : best;
    return best;
}

/// The points found so far, best first.
struct Found {
    int count = 0;
    float ranks[most_points];
    int32_t points[most_points][2];

    void insert(float rank, int32_t x, int32_t y, int k) {
        int place = count < k ? count++ : k - 1;
        for (; place > 0 && ranks[place - 1] < rank; --place) {  // equal ones stay before it
            ranks[place] = ranks[place - 1];
            memcpy(points[place], points[place - 1], sizeof points[0]);
        }
        ranks[place] = rank;
        points[place][0] = x;
        points[place][1] = y;
    }
};

inline int clip(int32_t value, int limit) { return value < 0 ? 0 : value > limit ? limit : value; }

template <bool largest>
void of_map(const TopkPoints& arguments, int index) {
    const int k = arguments.k;
    int x0 = 0, y0 = 0, x1 = arguments.width, y1 = arguments.height;
    if (arguments.boxes != nullptr) {
        const int32_t* box = arguments.boxes + static_cast<ptrdiff_t>(index) * 4;
        x0 = clip(box[0], x1), y0 = clip(box[1], y1), x1 = clip(box[2], x1), y1 = clip(box[3], y1);
    }
    const float* values = arguments.values + index * arguments.value_stride;
    Found found;
    for (int y = y0; y < y1 && x0 < x1; ++y) {
        const float* row = values + static_cast<ptrdiff_t>(y) * arguments.width;
        if (found.count == k && !(best_of_row<largest>(row + x0, x1 - x0) > found.ranks[k - 1])) continue;
        for (int x = x0; x < x1; ++x) {
            const float value = rank<largest>(row[x]);
            if (found.count < k || value > found.ranks[k - 1]) found.insert(value, x, y, k);
        }
    }
    int32_t* points = arguments.points + index * arguments.point_stride;
    memset(points, 0, sizeof(int32_t) * 2 * static_cast<size_t>(k));
    memcpy(points, found.points, sizeof(found.points[0]) * static_cast<size_t>(found.count));
}

}  // namespace

std::size_t workspace(const TopkPoints&, int) { return 0; }

void topk_points(const TopkPoints& arguments, void*, int threads) {
    const long long bytes = 4LL * arguments.batch * arguments.height * arguments.width;
    parallel_for(arguments.batch, useful_threads(threads, bytes), [&](int index, int) {
        arguments.largest ? of_map<true>(arguments, index) : of_map<false>(arguments, index);
    });
}

}  // namespace samg::cpu::SAMG_LEVEL
