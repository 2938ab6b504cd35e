// The pass that reads a map: sums over its channels, from which the cosines of its cells are computed.
#pragma once

#include "element.cuh"
#include "samg/similarity_map.h"

namespace samg::cuda {

/// Products of a cell with itself and with its neighbours. A lifted cell is a weighted sum of neighbouring cells v_i,
/// and its squared norm |sum of w_i v_i|^2 is the sum over pairs of w_i w_j (v_i . v_j), so no channel needs to be
/// lifted.
enum Product { self, right, down, down_right, down_left };

/// One map and its sums: (batch, count + products, grid * grid), dots with the features first, then products.
struct SummedMap {
    FeatureMap map;
    int count;     // of features
    int products;  // 1: only self; 5: all
    float* sums;

    __host__ __device__ std::size_t cells() const { return static_cast<std::size_t>(map.grid) * map.grid; }
    __host__ __device__ std::size_t rows() const { return static_cast<std::size_t>(count) + products; }
};

namespace channel_sums {

// A thread adds up every 32nd channel of four neighbouring cells. A warp reads four channels of 32 cells, 128 bytes of
// each in float32; a block has eight warps for the same cells, so that small batches too keep the memory busy.
constexpr int threads = 256, warps = threads / 32;
constexpr int blocks_at_once = 2;  // on a multiprocessor: one reads while the other adds
constexpr int cells_per_thread = 4, cells_per_block = 32;
constexpr int lanes_across = cells_per_block / cells_per_thread;
constexpr int channels_per_block = threads / lanes_across;
constexpr int most_rows = 8 + 5;  // features at a time, and products

/// Four cells of one channel, the next one to the right, and six of the row below.
template <class T>
struct Neighbourhood {
    T own[5], below[6];
};

/// kAligned: rows are whole, aligned quads. To read without conditions, another cell is read in place of one beyond the
/// channel's end: no lifted cell uses such a pair.
template <bool kNeighbours, bool kAligned, class T>
__device__ Neighbourhood<T> read(const T* __restrict__ channel, int cell, int cells, int grid) {
    Neighbourhood<T> out = {};
    const auto one = [=](int at) { return channel[min(at, cells - 1)]; };
    const auto four = [=](int at, T* values) {
        if (kAligned) {
            const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(channel + min(at, cells - 4));
            for (int i = 0; i < 4; ++i) values[i] = quad.values[i];
        } else {
            for (int i = 0; i < 4; ++i) values[i] = one(at + i);
        }
    };
    four(cell, out.own);
    if (kNeighbours) {
        out.own[4] = one(cell + 4);
        out.below[0] = one(cell + grid - 1);
        four(cell + grid, out.below + 1);
        out.below[5] = one(cell + grid + 4);
    }
    return out;
}

/// Adds the sums of four cells over the four lanes that have the same cells; each of these lanes keeps one cell's sum.
__device__ inline float gather_cell(const float (&sums)[4], int lane) {
    const bool second_half = (lane & 16) != 0, second = (lane & 8) != 0;
    const float kept_0 = second_half ? sums[2] : sums[0], kept_1 = second_half ? sums[3] : sums[1];
    const float given_0 = second_half ? sums[0] : sums[2], given_1 = second_half ? sums[1] : sums[3];
    const float half_0 = kept_0 + __shfl_xor_sync(0xffffffffu, given_0, 16);
    const float half_1 = kept_1 + __shfl_xor_sync(0xffffffffu, given_1, 16);
    return (second ? half_1 : half_0) + __shfl_xor_sync(0xffffffffu, second ? half_0 : half_1, 8);
}

/// One block: kFeatures features at a time with 32 cells of a frame. of_warps: warps * most_rows rows of 32.
template <int kFeatures, bool kNeighbours, bool kAligned, class T>
__device__ void sum_tile(const SummedMap& summed, std::size_t frame, int tile, float* of_warps) {
    constexpr int products = kNeighbours ? 5 : 1, rows = kFeatures + products;
    // Channels that are read ahead, as many as registers allow.
    constexpr int unroll = 8 / ((kNeighbours ? 2 : 1) * (kFeatures > 2 ? 2 : 1) * (kAligned ? 1 : 2));
    const FeatureMap& map = summed.map;
    const int grid = map.grid, cells = grid * grid, channels = map.channels;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first_channel = warp * (32 / lanes_across) + lane / lanes_across;
    const int cell = tile * cells_per_block + lane % lanes_across * cells_per_thread;
    const T* __restrict__ frame_cells = static_cast<const T*>(map.cells) + frame * channels * cells;
    const float* __restrict__ frame_features = map.features + static_cast<std::ptrdiff_t>(frame) * map.stride;

    for (int first = 0; first < summed.count; first += kFeatures) {
        float sums[rows][4] = {};
        for (int start = first_channel; start < channels; start += unroll * channels_per_block) {
            Neighbourhood<T> read_ahead[unroll];
            for (int u = 0; u < unroll; ++u) {
                const int channel = start + u * channels_per_block;
                const T* __restrict__ of_channel = frame_cells + static_cast<std::size_t>(channel) * cells;
                read_ahead[u] = channel < channels ? read<kNeighbours, kAligned>(of_channel, cell, cells, grid)
                                                   : Neighbourhood<T>{};
            }
            for (int u = 0; u < unroll; ++u) {
                const int channel = min(start + u * channels_per_block, channels - 1);
                float own[5], below[6];
                for (int i = 0; i < 5; ++i) own[i] = to_float(read_ahead[u].own[i]);
                for (int i = 0; i < 6; ++i) below[i] = to_float(read_ahead[u].below[i]);
                for (int k = 0; k < kFeatures; ++k) {
                    const int feature = min(first + k, summed.count - 1);
                    const float value = frame_features[feature * channels + channel];
                    for (int i = 0; i < 4; ++i) sums[k][i] += value * own[i];
                }
                for (int i = 0; i < 4; ++i) {
                    sums[kFeatures + self][i] += own[i] * own[i];
                    if (kNeighbours) {
                        float (*of_neighbours)[4] = sums + rows - products;
                        of_neighbours[right][i] += own[i] * own[i + 1];
                        of_neighbours[down][i] += own[i] * below[i + 1];
                        of_neighbours[down_right][i] += own[i] * below[i + 2];
                        of_neighbours[down_left][i] += own[i] * below[i];
                    }
                }
            }
        }
        const int column = lane % lanes_across * 4 + (lane & 16) / 8 + (lane & 8) / 8;
        for (int row = 0; row < rows; ++row) of_warps[(warp * rows + row) * 32 + column] = gather_cell(sums[row], lane);
        __syncthreads();
        for (int i = threadIdx.x; i < rows * 32; i += threads) {
            float sum = 0;
            for (int w = 0; w < warps; ++w) sum += of_warps[w * rows * 32 + i];
            const int row = i / 32, at = tile * cells_per_block + i % 32;
            const bool is_feature = row < kFeatures;
            if (at >= cells || (is_feature ? first + row >= summed.count : first > 0)) continue;
            const std::size_t out_row = is_feature ? first + row : summed.count + row - kFeatures;
            summed.sums[(frame * summed.rows() + out_row) * cells + at] = sum;
        }
        __syncthreads();
    }
}

template <int kFeatures, bool kNeighbours, class T>
__device__ void sum_tile(const SummedMap& summed, std::size_t frame, int tile, float* of_warps) {
    const bool aligned =
        summed.map.grid % 4 == 0 && reinterpret_cast<std::uintptr_t>(summed.map.cells) % alignof(Quad<T>) == 0;
    if (aligned) {
        sum_tile<kFeatures, kNeighbours, true, T>(summed, frame, tile, of_warps);
    } else {
        sum_tile<kFeatures, kNeighbours, false, T>(summed, frame, tile, of_warps);
    }
}

template <int kFeatures, bool kNeighbours>
__device__ void sum_tile(const SummedMap& summed, std::size_t frame, int tile, float* of_warps) {
    if (summed.map.element == Element::float16) {
        sum_tile<kFeatures, kNeighbours, __half>(summed, frame, tile, of_warps);
    } else {
        sum_tile<kFeatures, kNeighbours, float>(summed, frame, tile, of_warps);
    }
}

}  // namespace channel_sums
}  // namespace samg::cuda
