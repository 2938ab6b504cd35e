// Masked observation: the frame where the mask is set, a colour or another image elsewhere.
#pragma once

#include "samg/types.h"

namespace samg {

struct ApplyMask {
    int batch = 0, height = 0, width = 0;
    const std::uint8_t* frames = nullptr;      // (batch, height, width, 3)
    const std::uint8_t* masks = nullptr;       // (batch, height, width), 0 or not
    const std::uint8_t* background = nullptr;  // (3,) a colour, or (height, width, 3) of each frame
    bool background_is_picture = false;        //
    std::ptrdiff_t background_stride = 0;      // elements from one frame's image to the next one's; 0: one for all
    std::uint8_t* out = nullptr;               // (batch, height, width, 3); may be `frames` itself
};

namespace cpu {
std::size_t workspace(const ApplyMask&, int threads);
void apply_mask(const ApplyMask&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const ApplyMask&);
void apply_mask(const ApplyMask&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
