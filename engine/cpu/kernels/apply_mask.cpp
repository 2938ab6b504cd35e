#include "samg/apply_mask.h"

#include "kernels.h"
#include "parallel.h"

namespace samg::cpu::SAMG_LEVEL {

std::size_t workspace(const ApplyMask&, int) { return 0; }

void apply_mask(const ApplyMask& arguments, void*, int threads) {
    const ptrdiff_t pixels = static_cast<ptrdiff_t>(arguments.height) * arguments.width;
    parallel_for(arguments.batch, useful_threads(threads, 7 * arguments.batch * pixels), [&](int frame, int) {
        const uint8_t* from = arguments.frames + frame * pixels * 3;
        const uint8_t* mask = arguments.masks + frame * pixels;
        uint8_t* out = arguments.out + frame * pixels * 3;
        const uint8_t* background = arguments.background + frame * arguments.background_stride;
        if (arguments.background_is_picture) {
            for (ptrdiff_t i = 0; i < pixels; ++i) {
                const uint8_t* chosen = mask[i] != 0 ? from + 3 * i : background + 3 * i;
                const uint8_t red = chosen[0], green = chosen[1], blue = chosen[2];
                out[3 * i] = red, out[3 * i + 1] = green, out[3 * i + 2] = blue;
            }
            return;
        }
        const uint8_t red = background[0], green = background[1], blue = background[2];
        for (ptrdiff_t i = 0; i < pixels; ++i) {
            const bool kept = mask[i] != 0;
            out[3 * i] = kept ? from[3 * i] : red;
            out[3 * i + 1] = kept ? from[3 * i + 1] : green;
            out[3 * i + 2] = kept ? from[3 * i + 2] : blue;
        }
    });
}

}  // namespace samg::cpu::SAMG_LEVEL
