#include <cuda_fp16.h>

#include "launch.h"
#include "samg/preprocess.h"

namespace samg::cuda {
namespace {

constexpr int tile_width = 32, tile_height = 16, threads = 256;
constexpr int channels = 3, bytes = 256;

struct Pixel {
    float values[channels];
};

__device__ const std::uint8_t* source_of(const Taps& taps, std::size_t tap, const std::uint8_t* start, int pitch) {
    return start + static_cast<std::size_t>(taps.source[tap]) * pitch;
}

__device__ int rounded(int fixed_point) { return min(max(fixed_point >> 22, 0), bytes - 1); }

/// As Pillow does it: a byte after the columns, and again after the rows.
__device__ Pixel resize_bytes(const NetworkInput& input, const std::uint8_t* frame, int width, int y, int x,
                              const float (*levels)[bytes]) {
    constexpr int half = 1 << 21;
    int down[channels] = {half, half, half};
    for (int r = 0; r < input.rows.count; ++r) {
        const std::size_t row_tap = static_cast<std::size_t>(r) * input.rows.length + y;
        const std::uint8_t* row = source_of(input.rows, row_tap, frame, channels * width);
        int across[channels] = {half, half, half};
        for (int c = 0; c < input.columns.count; ++c) {
            const std::size_t column_tap = static_cast<std::size_t>(c) * input.columns.length + x;
            const std::uint8_t* pixel = source_of(input.columns, column_tap, row, channels);
            const int weight = static_cast<int>(input.columns.weight[column_tap]);
            for (int channel = 0; channel < channels; ++channel) across[channel] += pixel[channel] * weight;
        }
        const int weight = static_cast<int>(input.rows.weight[row_tap]);
        for (int channel = 0; channel < channels; ++channel) down[channel] += rounded(across[channel]) * weight;
    }
    Pixel out;
    for (int channel = 0; channel < channels; ++channel) out.values[channel] = levels[channel][rounded(down[channel])];
    return out;
}

__device__ Pixel resize_levels(const NetworkInput& input, const std::uint8_t* frame, int width, int y, int x,
                               const float (*levels)[bytes]) {
    Pixel out = {};
    for (int r = 0; r < input.rows.count; ++r) {
        const std::size_t row_tap = static_cast<std::size_t>(r) * input.rows.length + y;
        const std::uint8_t* row = source_of(input.rows, row_tap, frame, channels * width);
        float across[channels] = {};
        for (int c = 0; c < input.columns.count; ++c) {
            const std::size_t column_tap = static_cast<std::size_t>(c) * input.columns.length + x;
            const std::uint8_t* pixel = source_of(input.columns, column_tap, row, channels);
            const float weight = input.columns.weight[column_tap];
            for (int channel = 0; channel < channels; ++channel) {
                across[channel] += levels[channel][pixel[channel]] * weight;
            }
        }
        const float weight = input.rows.weight[row_tap];
        for (int channel = 0; channel < channels; ++channel) out.values[channel] += across[channel] * weight;
    }
    return out;
}

__device__ void store(const NetworkInput& input, std::size_t index, float value) {
    if (input.element == Element::float16) {
        static_cast<__half*>(input.out)[index] = __float2half_rn(value);
    } else {
        static_cast<float*>(input.out)[index] = value;
    }
}

__device__ void fill_tile(const Preprocess& args, const NetworkInput& input, unsigned block,
                          const float (*levels)[bytes]) {
    const int side = input.side;
    const unsigned tiles_across = (side + tile_width - 1) / tile_width;
    const unsigned tiles_down = (side + tile_height - 1) / tile_height;
    const int x = block % tiles_across * tile_width + threadIdx.x % tile_width;
    const int top = block / tiles_across % tiles_down * tile_height;
    const std::size_t index = block / (tiles_across * tiles_down);
    const std::uint8_t* frame = args.frames + index * args.height * args.width * channels;
    if (x >= side) return;
    for (int y = top + threadIdx.x / tile_width; y < min(top + tile_height, side); y += threads / tile_width) {
        Pixel pixel = {};
        if (y < input.rows.length && x < input.columns.length) {
            pixel = input.resize == Resize::uint8 ? resize_bytes(input, frame, args.width, y, x, levels)
                                                  : resize_levels(input, frame, args.width, y, x, levels);
        }
        for (int channel = 0; channel < channels; ++channel) {
            store(input, ((index * channels + channel) * side + y) * side + x, pixel.values[channel]);
        }
    }
}

/// The first `split` blocks fill tiles of the first input, the others tiles of the second.
__global__ void __launch_bounds__(threads) preprocess_kernel(Preprocess args, unsigned split) {
    __shared__ float levels[channels][bytes];
    const bool first = blockIdx.x < split;
    const float* source = first ? args.inputs[0].levels : args.inputs[1].levels;
    for (int i = threadIdx.x; i < channels * bytes; i += threads) levels[i / bytes][i % bytes] = source[i];
    __syncthreads();
    if (first) {
        fill_tile(args, args.inputs[0], blockIdx.x, levels);
    } else {
        fill_tile(args, args.inputs[1], blockIdx.x - split, levels);
    }
}

std::size_t tiles(const Preprocess& args, int input) {
    if (input >= args.count) return 0;
    const std::size_t side = args.inputs[input].side;
    return args.batch * pieces(side, tile_width) * pieces(side, tile_height);
}

}  // namespace

std::size_t workspace(const Preprocess&) { return 0; }

void preprocess(const Preprocess& args, void*, Stream stream) {
    const std::size_t split = tiles(args, 0);
    Launcher{"preprocess", stream}(preprocess_kernel, split + tiles(args, 1), threads, args,
                                   static_cast<unsigned>(split));
}

}  // namespace samg::cuda
