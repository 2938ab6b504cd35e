#include "launch.h"
#include "samg/topk_points.h"

namespace samg::cuda {
namespace {

constexpr int threads = 512, warps = threads / 32;
constexpr int blocks_at_once = 2;  // on a multiprocessor; with more, ptxas would spill registers
constexpr unsigned chunk = 16384;  // pixels that one block searches

/// A pixel's value in the high bits, then how early it comes: the best pixel has the greatest key. 0 is no pixel.
using Key = unsigned long long;

__device__ Key key_of(float value, unsigned index, bool largest) {
    if (isnan(value)) value = -INFINITY;
    if (value == 0) value = 0;  // -0 and +0 are equal
    const unsigned bits = __float_as_uint(value);
    const unsigned rising = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<Key>(largest ? rising : ~rising) << 32 | ~index;
}

/// The part of a map that is searched, in row-major order.
struct Window {
    int left = 0, top = 0, width, pixels;

    __device__ Window(const TopkPoints& args, std::size_t map) : width(args.width), pixels(args.width * args.height) {
        if (args.boxes == nullptr) return;
        const std::int32_t* box = args.boxes + 4 * map;
        left = max(box[0], 0);
        top = max(box[1], 0);
        const int right = min(box[2], args.width), bottom = min(box[3], args.height);
        width = left < right ? right - left : 0;
        pixels = top < bottom ? width * (bottom - top) : 0;
    }
};

/// The keys of some of a window's pixels.
struct Pixels {
    const float* values;
    Window window;
    int first, count, pitch;
    bool largest;

    __device__ Pixels(const TopkPoints& args, std::size_t map, int chunk_index)
        : values(args.values + static_cast<std::ptrdiff_t>(map) * args.value_stride),
          window(args, map),
          first(chunk_index * static_cast<int>(chunk)),
          count(min(window.pixels - first, static_cast<int>(chunk))),
          pitch(args.width),
          largest(args.largest) {}

    __device__ Key operator[](int i) const {
        const int y = window.top + (first + i) / window.width, x = window.left + (first + i) % window.width;
        return key_of(values[y * pitch + x], static_cast<unsigned>(y * pitch + x), largest);
    }
};

/// Keys already found.
struct Found {
    const Key* keys;
    int count;

    __device__ Key operator[](int i) const { return keys[i]; }
};

/// The greatest of this thread's keys that is less than `limit`.
template <class Keys>
__device__ Key best_below(const Keys& keys, Key limit) {
    Key best = 0;
    for (int i = threadIdx.x; i < keys.count; i += threads) {
        const Key key = keys[i];
        if (key < limit && key > best) best = key;
    }
    return best;
}

/// Calls take(rank, key) on one thread for the k greatest keys, in order; key is 0 if there are fewer. Each thread
/// reads its keys once, and again only after its best one was taken.
template <class Keys, class Take>
__device__ void select(const Keys& keys, int k, const Take& take) {
    __shared__ Key of_warp[2][warps];  // two buffers, so that one barrier a rank is enough
    Key mine = best_below(keys, ~Key{0});
    for (int rank = 0; rank < k; ++rank) {
        Key best = mine;
        for (int lanes = 16; lanes > 0; lanes /= 2) best = max(best, __shfl_xor_sync(0xffffffffu, best, lanes));
        if (threadIdx.x % 32 == 0) of_warp[rank % 2][threadIdx.x / 32] = best;
        __syncthreads();
        for (int warp = 0; warp < warps; ++warp) best = max(best, of_warp[rank % 2][warp]);
        if (threadIdx.x == 0) take(rank, best);
        if (mine == best && best != 0) mine = best_below(keys, best);
    }
}

struct PointWriter {
    std::int32_t* points;
    int width;

    __device__ PointWriter(const TopkPoints& args, std::size_t map)
        : points(args.points + static_cast<std::ptrdiff_t>(map) * args.point_stride), width(args.width) {}

    __device__ void operator()(int rank, Key key) const {
        const unsigned index = key == 0 ? 0 : ~static_cast<unsigned>(key);
        points[2 * rank] = static_cast<int>(index % width);
        points[2 * rank + 1] = static_cast<int>(index / width);
    }
};

struct KeyWriter {
    Key* keys;

    __device__ void operator()(int rank, Key key) const { keys[rank] = key; }
};

/// Small maps, one block each.
__global__ void __launch_bounds__(threads, blocks_at_once) points_kernel(TopkPoints args) {
    const std::size_t map = blockIdx.x;
    select(Pixels(args, map, 0), args.k, PointWriter(args, map));
}

/// Large maps, first launch: the k best of each chunk of the window; a chunk beyond its end has none.
__global__ void __launch_bounds__(threads, blocks_at_once) chunks_kernel(TopkPoints args, unsigned chunks, Key* found) {
    const Pixels pixels(args, blockIdx.x / chunks, static_cast<int>(blockIdx.x % chunks));
    select(pixels, args.k, KeyWriter{found + static_cast<std::size_t>(blockIdx.x) * args.k});
}

/// Large maps, second launch: the k best of all chunks.
__global__ void __launch_bounds__(threads, blocks_at_once)
    merge_kernel(TopkPoints args, unsigned chunks, const Key* found) {
    const std::size_t map = blockIdx.x, count = static_cast<std::size_t>(chunks) * args.k;
    select(Found{found + map * count, static_cast<int>(count)}, args.k, PointWriter(args, map));
}

std::size_t chunks_of(const TopkPoints& args) {
    return pieces(static_cast<std::size_t>(args.height) * args.width, chunk);
}

}  // namespace

std::size_t workspace(const TopkPoints& args) {
    const std::size_t chunks = chunks_of(args);
    return chunks <= 1 ? 0 : args.batch * chunks * args.k * sizeof(Key);
}

void topk_points(const TopkPoints& args, void* workspace, Stream stream) {
    const Launcher launch{"topk_points", stream};
    const std::size_t batch = args.batch, chunks = chunks_of(args);
    if (chunks <= 1) {
        launch(points_kernel, batch, threads, args);
        return;
    }
    Key* const found = static_cast<Key*>(workspace);
    launch(chunks_kernel, batch * chunks, threads, args, static_cast<unsigned>(chunks), found);
    launch(merge_kernel, batch, threads, args, static_cast<unsigned>(chunks), found);
}

}  // namespace samg::cuda
