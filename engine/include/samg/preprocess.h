// Frames to the inputs of one network or of two, in one pass: resize, normalise, zero-pad right and bottom.
#pragma once

#include "samg/types.h"

namespace samg {

enum class Resize {
    uint8,   // Pillow's bilinear filter in 22-bit fixed point, columns first, rounded to uint8 after each axis
    float32  // in float, without antialias
};

/// A network's input.
struct NetworkInput {
    int side = 0;                        // of the square
    Resize resize = Resize::uint8;       //
    Taps rows, columns;                  // length: rows and columns of the square that frames cover. Weights for
                                         // uint8 are 2^22 times Pillow's, rounded; sources are neighbours
    const float* levels = nullptr;       // (3, 256): the normalised value of each byte in each channel
    Element element = Element::float32;  // of out
    void* out = nullptr;                 // (batch, 3, side, side)
};

struct Preprocess {
    int batch = 0, height = 0, width = 0;
    const std::uint8_t* frames = nullptr;  // (batch, height, width, 3) RGB
    int count = 0;                         // of inputs, 1 or 2
    NetworkInput inputs[2];
};

namespace cpu {
std::size_t workspace(const Preprocess&, int threads);
void preprocess(const Preprocess&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const Preprocess&);
void preprocess(const Preprocess&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
