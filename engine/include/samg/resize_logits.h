// Mask logits of a decode to one mask at the frame's size, its area and bounding box, and the next decode's mask input.
#pragma once

#include "samg/types.h"

namespace samg {

/// Either `weights` or `iou` is given: the masks' weighted sum, or the mask with the highest predicted IoU (the first
/// of equal ones; NaN counts as minus infinity).
struct ResizeLogits {
    int batch = 0, masks = 0, side = 0;
    Element element = Element::float32;  // of low_res
    const void* low_res = nullptr;       // (masks, side, side) of each frame
    std::ptrdiff_t low_res_stride = 0;   // elements from one frame's masks to the next one's
    const float* weights = nullptr;      // (batch, masks)
    const float* iou = nullptr;          // (masks,) of each frame
    std::ptrdiff_t iou_stride = 0;       // elements from one frame's to the next one's
    Taps rows, columns;                  // side through the resize chain to the frame
    float* settled = nullptr;            // (batch, side, side): the sum or the chosen mask
    float* logits = nullptr;             // (batch, rows.length, columns.length)
    std::uint8_t* mask = nullptr;        // (batch, rows.length, columns.length): 1 where logits > 0, otherwise 0
    std::int32_t* area = nullptr;        // (batch,) pixels of the mask
    std::int32_t* box = nullptr;         // (batch, 4): x_min, y_min, x_max, y_max; 1, 1, W - 1, H - 1 of an empty mask
    std::int32_t* chosen = nullptr;      // (batch,) which mask; -1 with weights
};

namespace cpu {
std::size_t workspace(const ResizeLogits&, int threads);
void resize_logits(const ResizeLogits&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const ResizeLogits&);
void resize_logits(const ResizeLogits&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
