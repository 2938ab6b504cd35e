#include "channel_sums.cuh"
#include "launch.h"
#include "resample.cuh"
#include "samg/similarity_map.h"

namespace samg::cuda {
namespace {

constexpr int threads = 256;
constexpr float smallest_norm = 1e-12f;

/// First launch: sums over the channels. Blocks of the second map start first, as they take longest.
template <int kFeatures>
__global__ void __launch_bounds__(channel_sums::threads, channel_sums::blocks_at_once)
    sums_kernel(SummedMap sam, SummedMap dino, unsigned sam_tiles, unsigned dino_tiles, unsigned dino_blocks) {
    __shared__ float of_warps[channel_sums::warps * channel_sums::most_rows * 32];
    if (blockIdx.x >= dino_blocks) {
        const unsigned block = blockIdx.x - dino_blocks;
        const int tile = static_cast<int>(block % sam_tiles);
        channel_sums::sum_tile<kFeatures, false>(sam, block / sam_tiles, tile, of_warps);
    } else {
        const std::size_t frame = blockIdx.x / dino_tiles;
        const int tile = static_cast<int>(blockIdx.x % dino_tiles);
        if (dino.products == 1) {
            channel_sums::sum_tile<kFeatures, false>(dino, frame, tile, of_warps);
        } else {
            channel_sums::sum_tile<kFeatures, true>(dino, frame, tile, of_warps);
        }
    }
}

/// The one or two neighbours that an entry is a weighted sum of.
struct Neighbours {
    int low, high;
    float low_weight, high_weight;
};

__device__ Neighbours neighbours(const Taps& taps, int entry) {
    Neighbours out = {taps.source[entry], taps.source[entry], taps.weight[entry], 0};
    if (taps.count > 1) {
        out.high = taps.source[taps.length + entry];
        out.high_weight = taps.weight[taps.length + entry];
    }
    return out;
}

/// A cell of the lifted map: indices and weights of the cells that it is a sum of, in the order left, right, below
/// left, below right. Cells of weight 0 are not read: their index may be outside the map, or no neighbour's.
struct Mixture {
    int cells[4];
    float weights[4];

    __device__ Mixture(const Taps& lift, int grid, int row, int column) {
        const Neighbours rows = neighbours(lift, row), columns = neighbours(lift, column);
        for (int i = 0; i < 4; ++i) {
            cells[i] = (i < 2 ? rows.low : rows.high) * grid + (i % 2 == 0 ? columns.low : columns.high);
            weights[i] =
                (i < 2 ? rows.low_weight : rows.high_weight) * (i % 2 == 0 ? columns.low_weight : columns.high_weight);
        }
    }

    template <class Read>
    __device__ float mix(const Read& read) const {
        float sum = 0;
        for (int i = 0; i < 4; ++i) sum += weights[i] != 0 ? weights[i] * read(cells[i]) : 0;
        return sum;
    }

    __device__ float pair(int a, int b, const float* __restrict__ products) const {
        const float weight = weights[a] * weights[b];
        return weight != 0 ? 2 * weight * products[cells[a]] : 0;
    }
};

__device__ float cosine(float dot, float squared_norm) {
    const float norm = sqrtf(squared_norm);
    return dot / (norm < smallest_norm ? smallest_norm : norm);  // unlike fmaxf, keeps NaN
}

/// Cosine of a lifted cell from its channels: slow, but accurate where the products of its neighbours cancel out.
__device__ float cosine_by_channels(const FeatureMap& map, std::size_t frame, int feature, const Mixture& mixture) {
    const std::size_t cells = static_cast<std::size_t>(map.grid) * map.grid;
    const float* features = map.features + static_cast<std::ptrdiff_t>(frame) * map.stride +
                            static_cast<std::size_t>(feature) * map.channels;
    float dot = 0, squared_norm = 0;
    for (int channel = 0; channel < map.channels; ++channel) {
        const std::size_t start = (frame * map.channels + channel) * cells;
        const float value = mixture.mix([&](int cell) {
            return map.element == Element::float16 ? to_float(static_cast<const __half*>(map.cells)[start + cell])
                                                   : static_cast<const float*>(map.cells)[start + cell];
        });
        dot += features[channel] * value;
        squared_norm += value * value;
    }
    return cosine(dot, squared_norm);
}

__device__ float lifted_cosine(const SummedMap& dino, const Taps& lift, std::size_t frame, int feature, int row,
                               int column) {
    const Mixture mixture(lift, dino.map.grid, row, column);
    const std::size_t cells = dino.cells();
    const float* __restrict__ sums = dino.sums + frame * dino.rows() * cells;
    const float* __restrict__ dots = sums + feature * cells;
    const float* __restrict__ products = sums + dino.count * cells;
    const float largest = mixture.mix([&](int cell) { return products[self * cells + cell]; });
    float squared_norm = 0;
    for (int i = 0; i < 4; ++i) {
        const float weight = mixture.weights[i];
        squared_norm += weight != 0 ? weight * weight * products[self * cells + mixture.cells[i]] : 0;
    }
    if (dino.products > 1) {
        squared_norm += mixture.pair(0, 1, products + right * cells) + mixture.pair(2, 3, products + right * cells) +
                        mixture.pair(0, 2, products + down * cells) + mixture.pair(1, 3, products + down * cells) +
                        mixture.pair(0, 3, products + down_right * cells) +
                        mixture.pair(1, 2, products + down_left * cells);
    }
    // The squared norm is at most `largest` and rounded like it: one that is much smaller has lost its digits.
    if (squared_norm < largest / 16) return cosine_by_channels(dino.map, frame, feature, mixture);
    return cosine(mixture.mix([&](int cell) { return dots[cell]; }), squared_norm);
}

/// Second launch: (batch, count, grid, grid) cosines, at the first map's grid, averaged over both maps.
__global__ void __launch_bounds__(threads)
    cosines_kernel(SummedMap sam, SummedMap dino, Taps lift, unsigned blocks_per_map, float* cosines) {
    const std::size_t map = blockIdx.x / blocks_per_map, cells = sam.cells();
    const std::size_t frame = map / sam.count;
    const int feature = static_cast<int>(map % sam.count);
    const int cell = static_cast<int>(blockIdx.x % blocks_per_map * threads + threadIdx.x);
    if (cell >= static_cast<int>(cells)) return;
    const float* sums = sam.sums + frame * sam.rows() * cells;
    const float by_sam = cosine(sums[feature * cells + cell], sums[sam.count * cells + cell]);
    const float by_dino = lifted_cosine(dino, lift, frame, feature, cell / sam.map.grid, cell % sam.map.grid);
    cosines[map * cells + cell] = (by_sam + by_dino) / 2;
}

/// Third launch: to the frame.
__global__ void __launch_bounds__(threads)
    resize_kernel(Taps rows, Taps columns, int grid, unsigned blocks_per_map, const float* cosines, float* out) {
    const std::size_t map = blockIdx.x / blocks_per_map;
    const int pixel = static_cast<int>(blockIdx.x % blocks_per_map * threads + threadIdx.x);
    const int y = pixel / columns.length, x = pixel % columns.length;
    if (y >= rows.length) return;
    out[map * rows.length * columns.length + pixel] = resample(cosines + map * grid * grid, grid, rows, columns, y, x);
}

/// The arrays in the workspace.
struct Pieces {
    SummedMap sam, dino;
    float* cosines;
    std::size_t bytes = 0;

    Pieces(const SimilarityMap& args, void* workspace)
        : sam{args.sam, args.count, 1, nullptr}, dino{args.dino, args.count, args.lift.count > 1 ? 5 : 1, nullptr} {
        char* const start = static_cast<char*>(workspace);
        const auto take = [&](std::size_t maps, std::size_t cells) {
            float* const piece = start == nullptr ? nullptr : reinterpret_cast<float*>(start + bytes);
            bytes += pieces(args.batch * maps * cells * sizeof(float), alignment) * alignment;
            return piece;
        };
        sam.sums = take(sam.rows(), sam.cells());
        dino.sums = take(dino.rows(), dino.cells());
        cosines = take(args.count, sam.cells());
    }
};

}  // namespace

std::size_t workspace(const SimilarityMap& args) { return Pieces(args, nullptr).bytes; }

void similarity_map(const SimilarityMap& args, void* workspace, Stream stream) {
    const Launcher launch{"similarity_map", stream};
    const Pieces cut(args, workspace);
    const std::size_t sam_tiles = pieces(cut.sam.cells(), channel_sums::cells_per_block);
    const std::size_t dino_tiles = pieces(cut.dino.cells(), channel_sums::cells_per_block);
    const std::size_t dino_blocks = args.batch * dino_tiles, sum_blocks = args.batch * sam_tiles + dino_blocks;
    const auto sums = args.count == 1   ? sums_kernel<1>
                      : args.count == 2 ? sums_kernel<2>
                      : args.count <= 4 ? sums_kernel<4>
                                        : sums_kernel<8>;
    launch(sums, sum_blocks, channel_sums::threads, cut.sam, cut.dino, static_cast<unsigned>(sam_tiles),
           static_cast<unsigned>(dino_tiles), static_cast<unsigned>(dino_blocks));

    const std::size_t maps = static_cast<std::size_t>(args.batch) * args.count;
    const std::size_t cell_blocks = pieces(cut.sam.cells(), threads);
    launch(cosines_kernel, maps * cell_blocks, threads, cut.sam, cut.dino, args.lift,
           static_cast<unsigned>(cell_blocks), cut.cosines);
    const std::size_t pixel_blocks = pieces(static_cast<std::size_t>(args.rows.length) * args.columns.length, threads);
    launch(resize_kernel, maps * pixel_blocks, threads, args.rows, args.columns, args.sam.grid,
           static_cast<unsigned>(pixel_blocks), static_cast<const float*>(cut.cosines), args.out);
}

}  // namespace samg::cuda
