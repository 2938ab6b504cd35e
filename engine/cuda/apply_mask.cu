#include "launch.h"
#include "samg/apply_mask.h"

namespace samg::cuda {
namespace {

constexpr int threads = 256;
constexpr int words_per_thread = 4;  // in flight together
constexpr int tile = threads * words_per_thread;

/// A word of a repeated colour that begins with byte `phase` of the colour's three.
__device__ unsigned colour_word(const std::uint8_t* colour, unsigned phase) {
    const unsigned long long once = colour[0] | colour[1] << 8 | colour[2] << 16;
    return static_cast<unsigned>((once << 24 | once) >> 8 * phase);
}

/// Word: the bytes that are read and written at once, which belong to at most two pixels.
template <class Word>
__global__ void __launch_bounds__(threads) apply_mask_kernel(ApplyMask args, unsigned tiles_per_frame) {
    const std::size_t frame = blockIdx.x / tiles_per_frame;
    const unsigned pixels = static_cast<unsigned>(args.height) * static_cast<unsigned>(args.width);
    const unsigned size = sizeof(Word), words = 3 * pixels / size;
    const unsigned first = blockIdx.x % tiles_per_frame * tile + threadIdx.x;
    const Word* in = reinterpret_cast<const Word*>(args.frames + frame * pixels * 3);
    const std::uint8_t* masks = args.masks + frame * pixels;
    const std::ptrdiff_t start = static_cast<std::ptrdiff_t>(frame) * args.background_stride;
    Word* out = reinterpret_cast<Word*>(args.out + frame * pixels * 3);

    unsigned kept[words_per_thread], values[words_per_thread];
    for (int i = 0; i < words_per_thread; ++i) {
        const unsigned word = min(first + i * threads, words - 1), byte = word * size;
        const unsigned pixel = byte / 3, of_pixel = (1u << 8 * (3 * pixel + 3 - byte)) - 1;
        kept[i] = (masks[pixel] != 0 ? of_pixel : 0) | (masks[(byte + size - 1) / 3] != 0 ? ~of_pixel : 0);
        values[i] = in[word];
    }
    for (int i = 0; i < words_per_thread; ++i) {
        const unsigned word = first + i * threads;
        if (word >= words) break;
        unsigned behind = 0;
        if (!args.background_is_picture) {
            behind = colour_word(args.background, word * size % 3);
        } else if (static_cast<Word>(~kept[i]) != 0) {
            behind = reinterpret_cast<const Word*>(args.background + start)[word];
        }
        out[word] = static_cast<Word>((values[i] & kept[i]) | (behind & ~kept[i]));
    }
}

template <class Word>
void launch(const ApplyMask& args, std::size_t bytes, Stream stream) {
    const std::size_t tiles = pieces(bytes / sizeof(Word), tile);
    Launcher{"apply_mask", stream}(apply_mask_kernel<Word>, args.batch * tiles, threads, args,
                                   static_cast<unsigned>(tiles));
}

}  // namespace

std::size_t workspace(const ApplyMask&) { return 0; }

void apply_mask(const ApplyMask& args, void*, Stream stream) {
    using Word = std::uint32_t;
    const std::size_t bytes = static_cast<std::size_t>(args.height) * args.width * 3;
    std::uintptr_t together =
        reinterpret_cast<std::uintptr_t>(args.frames) | reinterpret_cast<std::uintptr_t>(args.out);
    if (args.background_is_picture) {
        together |=
            reinterpret_cast<std::uintptr_t>(args.background) | static_cast<std::uintptr_t>(args.background_stride);
    }
    if ((together | bytes) % sizeof(Word) == 0) {
        launch<Word>(args, bytes, stream);
    } else {
        launch<std::uint8_t>(args, bytes, stream);
    }
}

}  // namespace samg::cuda
