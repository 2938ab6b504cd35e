// Points and boxes into the decoder's slots.
#pragma once

#include "samg/types.h"

namespace samg {

/// First the points in the order asked for, then the box's two corners (labels 2 and 3) or SAM's "not a point" (0, 0)
/// with label -1, then empty slots (0, 0) with label -2.
struct PromptAssembly {
    int batch = 0;
    int points_per_frame = 0;
    const std::int32_t* points = nullptr;  // (points_per_frame, 2) of each frame, as (x, y) in its pixels
    std::ptrdiff_t point_stride = 0;       // elements from one frame's points to the next one's; 0: all share them
    int count = 0;                         // of points to use
    const std::int32_t* order = nullptr;   // (batch, count) which of the frame's points; one outside 0 ..
                                           // points_per_frame - 1 gives an empty slot
    const std::int32_t* labels = nullptr;  // (batch, count) 1 or 0
    const std::int32_t* boxes = nullptr;   // (batch, 4) in pixels of the frame; null: none
    float scale_x = 1, scale_y = 1;        // pixels of the prompt frame per pixel of the frame
    int slots = 0;                         // at least count + 2 with boxes, count + 1 without
    float* coords = nullptr;               // (batch, slots, 2)
    float* slot_labels = nullptr;          // (batch, slots)
};

namespace cpu {
std::size_t workspace(const PromptAssembly&, int threads);
void prompt_assembly(const PromptAssembly&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const PromptAssembly&);
void prompt_assembly(const PromptAssembly&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
