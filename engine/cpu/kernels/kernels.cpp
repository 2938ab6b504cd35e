// The table of one instruction set's kernels.
#include "kernels.h"

namespace samg::cpu::SAMG_LEVEL {

Kernels kernels() {
    return {{workspace, preprocess},    {workspace, similarity_map},  {workspace, topk_points},
            {workspace, resize_logits}, {workspace, prompt_assembly}, {workspace, apply_mask}};
}

}  // namespace samg::cpu::SAMG_LEVEL
