#include "launch.h"
#include "resample.cuh"
#include "samg/resize_logits.h"

namespace samg::cuda {
namespace {

constexpr int threads = 256;
constexpr int blocks_at_once = 2;    // on a multiprocessor; with more, ptxas would spill registers
constexpr int cells_per_thread = 4;  // in flight together
constexpr int tile = threads * cells_per_thread;

/// What the blocks of a frame have found so far. All are maxima that start at zero: minima count from the far side.
struct Found {
    unsigned area, from_right, from_bottom, right, bottom;
    unsigned blocks_done;
};

/// The masks that are summed and their weights: the chosen mask alone, or all.
struct Blend {
    int first = 0, end, chosen = -1;
    const float* weights = nullptr;

    __device__ Blend(const ResizeLogits& args, std::size_t frame) : end(args.masks) {
        if (args.iou == nullptr) {
            weights = args.weights + frame * args.masks;
            return;
        }
        const float* iou = args.iou + static_cast<std::ptrdiff_t>(frame) * args.iou_stride;
        float best = -INFINITY;
        chosen = 0;
        for (int mask = 0; mask < args.masks; ++mask) {
            if (iou[mask] > best) {  // false for NaN
                best = iou[mask];
                chosen = mask;
            }
        }
        first = chosen;
        end = chosen + 1;
    }

    __device__ float weight(int mask) const { return weights == nullptr ? 1.0f : weights[mask]; }
};

/// Writes a tile of the blended masks, at their own size.
template <class T>
__device__ void settle(const T* masks, int cells, const Blend& blend, int block, float* settled) {
    float sums[cells_per_thread] = {};
    const int start = block * tile + threadIdx.x;
    for (int mask = blend.first; mask < blend.end; ++mask) {
        const float weight = blend.weight(mask);
        const T* logits = masks + static_cast<std::size_t>(mask) * cells;
        for (int i = 0; i < cells_per_thread; ++i) {
            const int cell = start + i * threads;
            if (cell < cells) sums[i] += weight * to_float(logits[cell]);
        }
    }
    for (int i = 0; i < cells_per_thread; ++i) {
        const int cell = start + i * threads;
        if (cell < cells) settled[cell] = sums[i];
    }
}

__device__ unsigned most_in_warp(unsigned value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, lanes));
    return value;
}

/// Adds a block's pixels to what its frame has found so far.
__device__ void gather(bool in_mask, unsigned x, unsigned y, unsigned width, unsigned height, Found* frame) {
    __shared__ Found block;
    if (threadIdx.x == 0) block = {};
    __syncthreads();
    const unsigned area = __popc(__ballot_sync(0xffffffffu, in_mask));
    if (area > 0) {
        const unsigned from_right = most_in_warp(in_mask ? width - x : 0);
        const unsigned from_bottom = most_in_warp(in_mask ? height - y : 0);
        const unsigned right = most_in_warp(in_mask ? x + 1 : 0);
        const unsigned bottom = most_in_warp(in_mask ? y + 1 : 0);
        if (threadIdx.x % 32 == 0) {
            atomicAdd(&block.area, area);
            atomicMax(&block.from_right, from_right);
            atomicMax(&block.from_bottom, from_bottom);
            atomicMax(&block.right, right);
            atomicMax(&block.bottom, bottom);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && block.area > 0) {
        atomicAdd(&frame->area, block.area);
        atomicMax(&frame->from_right, block.from_right);
        atomicMax(&frame->from_bottom, block.from_bottom);
        atomicMax(&frame->right, block.right);
        atomicMax(&frame->bottom, block.bottom);
    }
}

/// The last block of a frame writes what all its blocks have found.
__device__ void finish(const ResizeLogits& args, std::size_t frame, unsigned blocks, Found* found) {
    __threadfence();
    if (atomicAdd(&found->blocks_done, 1u) != blocks - 1) return;
    __threadfence();
    const int width = args.columns.length, height = args.rows.length;
    const int area = static_cast<int>(atomicAdd(&found->area, 0u));
    const int left = width - static_cast<int>(atomicAdd(&found->from_right, 0u));
    const int top = height - static_cast<int>(atomicAdd(&found->from_bottom, 0u));
    const int right = static_cast<int>(atomicAdd(&found->right, 0u)) - 1;
    const int bottom = static_cast<int>(atomicAdd(&found->bottom, 0u)) - 1;
    if (args.area != nullptr) args.area[frame] = area;
    if (args.box != nullptr) {
        std::int32_t* box = args.box + 4 * frame;
        const bool empty = area == 0;
        box[0] = empty ? 1 : left;
        box[1] = empty ? 1 : top;
        box[2] = empty ? width - 1 : right;
        box[3] = empty ? height - 1 : bottom;
    }
}

/// First launch: the next decode's mask input and the chosen mask; resets what blocks have found.
template <class T>
__global__ void __launch_bounds__(threads) settle_kernel(ResizeLogits args, unsigned blocks, Found* found) {
    const std::size_t frame = blockIdx.x / blocks;
    const unsigned block = blockIdx.x % blocks;
    const T* masks = static_cast<const T*>(args.low_res) + static_cast<std::ptrdiff_t>(frame) * args.low_res_stride;
    const Blend blend(args, frame);
    if (block == 0 && threadIdx.x == 0) {
        found[frame] = {};
        if (args.chosen != nullptr) args.chosen[frame] = blend.chosen;
    }
    const int cells = args.side * args.side;
    if (args.settled != nullptr) settle(masks, cells, blend, static_cast<int>(block), args.settled + frame * cells);
}

/// Second launch: logits and mask of the frame's pixels, straight from the masks; area and box.
template <class T>
__global__ void __launch_bounds__(threads, blocks_at_once)
    resize_kernel(ResizeLogits args, unsigned blocks, Found* found) {
    const std::size_t frame = blockIdx.x / blocks;
    const T* masks = static_cast<const T*>(args.low_res) + static_cast<std::ptrdiff_t>(frame) * args.low_res_stride;
    const Blend blend(args, frame);
    const unsigned width = args.columns.length, height = args.rows.length;
    const unsigned pixel = blockIdx.x % blocks * threads + threadIdx.x, x = pixel % width, y = pixel / width;
    bool in_mask = false;
    if (y < height) {
        float logit = 0;
        for (int mask = blend.first; mask < blend.end; ++mask) {
            const T* logits = masks + static_cast<std::size_t>(mask) * args.side * args.side;
            logit += blend.weight(mask) *
                     resample(logits, args.side, args.rows, args.columns, static_cast<int>(y), static_cast<int>(x));
        }
        in_mask = logit > 0;  // false for NaN
        const std::size_t index = frame * width * height + pixel;
        if (args.logits != nullptr) args.logits[index] = logit;
        if (args.mask != nullptr) args.mask[index] = in_mask;
    }
    gather(in_mask, x, y, width, height, found + frame);
    if (threadIdx.x == 0) finish(args, frame, blocks, found + frame);
}

template <class T>
void launch_kernels(const ResizeLogits& args, Found* found, Stream stream) {
    const Launcher launch{"resize_logits", stream};
    const std::size_t cells = static_cast<std::size_t>(args.side) * args.side;
    const std::size_t settle_blocks = args.settled != nullptr ? pieces(cells, tile) : 1;
    launch(settle_kernel<T>, args.batch * settle_blocks, threads, args, static_cast<unsigned>(settle_blocks), found);
    const std::size_t blocks = pieces(static_cast<std::size_t>(args.rows.length) * args.columns.length, threads);
    launch(resize_kernel<T>, args.batch * blocks, threads, args, static_cast<unsigned>(blocks), found);
}

}  // namespace

std::size_t workspace(const ResizeLogits& args) { return args.batch * sizeof(Found); }

void resize_logits(const ResizeLogits& args, void* workspace, Stream stream) {
    Found* const found = static_cast<Found*>(workspace);
    if (args.element == Element::float16) {
        launch_kernels<__half>(args, found, stream);
    } else {
        launch_kernels<float>(args, found, stream);
    }
}

}  // namespace samg::cuda
