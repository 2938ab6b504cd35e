// Cosine similarity of K features with every cell of two maps, averaged, at the frame's size.
#pragma once

#include "samg/types.h"

namespace samg {

/// One of the two feature maps and what it is compared with.
struct FeatureMap {
    int channels = 0, grid = 0;
    Element element = Element::float32;
    const void* cells = nullptr;      // (batch, channels, grid, grid), raw
    const float* features = nullptr;  // (count, channels) of each frame, L2-normalised
    std::ptrdiff_t stride = 0;        // elements from one frame's features to the next one's; 0: all share them
};

struct SimilarityMap {
    int batch = 0;
    int count = 0;         // K, of features, 1 to 64
    FeatureMap sam, dino;  //
    Taps lift;             // dino's grid to sam's; of at most two neighbouring cells
    Taps rows, columns;    // sam's grid through the whole resize chain to the frame
    float* out = nullptr;  // (batch, count, rows.length, columns.length)
};

namespace cpu {
std::size_t workspace(const SimilarityMap&, int threads);
void similarity_map(const SimilarityMap&, void* workspace, int threads);
}  // namespace cpu

namespace cuda {
std::size_t workspace(const SimilarityMap&);
void similarity_map(const SimilarityMap&, void* workspace, Stream);
}  // namespace cuda

}  // namespace samg
