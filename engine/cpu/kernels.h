// The kernels of one instruction set. Every file in kernels/ is compiled once for each, with SAMG_LEVEL as the name of
// the namespace. They include only C headers: of a template of the C++ standard library that several files compile, the
// linker keeps one copy for all, and that one could be compiled for a newer processor.
#pragma once

#include "samg/apply_mask.h"
#include "samg/preprocess.h"
#include "samg/prompt_assembly.h"
#include "samg/resize_logits.h"
#include "samg/similarity_map.h"
#include "samg/topk_points.h"

namespace samg::cpu {

template <class Arguments>
struct Kernel {
    std::size_t (*workspace)(const Arguments&, int threads);
    void (*run)(const Arguments&, void* workspace, int threads);
};

struct Kernels {
    Kernel<Preprocess> preprocess;
    Kernel<SimilarityMap> similarity_map;
    Kernel<TopkPoints> topk_points;
    Kernel<ResizeLogits> resize_logits;
    Kernel<PromptAssembly> prompt_assembly;
    Kernel<ApplyMask> apply_mask;
};

#ifdef SAMG_LEVEL
namespace SAMG_LEVEL {

std::size_t workspace(const Preprocess&, int threads);
std::size_t workspace(const SimilarityMap&, int threads);
std::size_t workspace(const TopkPoints&, int threads);
std::size_t workspace(const ResizeLogits&, int threads);
std::size_t workspace(const PromptAssembly&, int threads);
std::size_t workspace(const ApplyMask&, int threads);

void preprocess(const Preprocess&, void* workspace, int threads);
void similarity_map(const SimilarityMap&, void* workspace, int threads);
void topk_points(const TopkPoints&, void* workspace, int threads);
void resize_logits(const ResizeLogits&, void* workspace, int threads);
void prompt_assembly(const PromptAssembly&, void* workspace, int threads);
void apply_mask(const ApplyMask&, void* workspace, int threads);

}  // namespace SAMG_LEVEL
#endif

}  // namespace samg::cpu
