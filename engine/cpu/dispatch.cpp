// The operations of samg::cpu: each runs the kernel of the level in use.
#include "levels.h"

namespace samg::cpu {

#define SAMG_DISPATCH(name, Arguments)                                 \
    std::size_t workspace(const Arguments& arguments, int threads) {   \
        return level().kernels.name.workspace(arguments, threads);     \
    }                                                                  \
    void name(const Arguments& arguments, void* memory, int threads) { \
        level().kernels.name.run(arguments, memory, threads);          \
    }

SAMG_DISPATCH(preprocess, Preprocess)
SAMG_DISPATCH(similarity_map, SimilarityMap)
SAMG_DISPATCH(topk_points, TopkPoints)
SAMG_DISPATCH(resize_logits, ResizeLogits)
SAMG_DISPATCH(prompt_assembly, PromptAssembly)
SAMG_DISPATCH(apply_mask, ApplyMask)

}  // namespace samg::cpu
