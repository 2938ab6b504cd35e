// samg_fast._engine_cuda: the operations on an NVIDIA GPU. Built a second time for the host, as samg_fast._engine_simt,
// it runs the same kernels on the SIMT executor, and its arrays are NumPy's.
#include "operations.h"

#ifdef SAMG_SIMT
#include "simt/executor.h"
#define SAMG_MODULE _engine_simt
#else
#include <cuda_runtime_api.h>
#define SAMG_MODULE _engine_cuda
#endif

namespace {

struct Cuda {
#ifdef SAMG_SIMT
    using Place = nanobind::device::cpu;
#else
    using Place = nanobind::device::cuda;
#endif
    using Launch = samg::Stream;

    static samg::Stream launch(std::uintptr_t stream) { return reinterpret_cast<samg::Stream>(stream); }

    template <class Arguments>
    static std::size_t workspace(const Arguments& arguments, samg::Stream) {
        return samg::cuda::workspace(arguments);
    }

    static constexpr auto preprocess = samg::cuda::preprocess;
    static constexpr auto similarity_map = samg::cuda::similarity_map;
    static constexpr auto topk_points = samg::cuda::topk_points;
    static constexpr auto resize_logits = samg::cuda::resize_logits;
    static constexpr auto prompt_assembly = samg::cuda::prompt_assembly;
    static constexpr auto apply_mask = samg::cuda::apply_mask;
};

}  // namespace

NB_MODULE(SAMG_MODULE, module) {
    module.doc() = "The operations of a frame on an NVIDIA GPU. `samg_fast.ops` is the way in.";
    samg::bindings::define_operations<Cuda>(module);
#ifdef SAMG_SIMT
    module.def(
        "set_order",
        [](const char* name, unsigned seed) {
            using samg::simt::Order;
            const std::string order = name;
            samg::bindings::require(order == "forward" || order == "backward" || order == "shuffled",
                                    "order must be forward, backward or shuffled");
            samg::simt::set_order(order == "forward"    ? Order::forward
                                  : order == "backward" ? Order::backward
                                                        : Order::shuffled,
                                  seed);
        },
        nanobind::arg("order"), nanobind::arg("seed") = 0,
        "The order in which blocks, and threads between two synchronisations, run: forward, backward or shuffled.");
#else
    module.attr("runtime_version") = CUDART_VERSION;
#endif
}
