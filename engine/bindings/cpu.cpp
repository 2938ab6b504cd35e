// samg_fast._engine: the operations on a CPU.
#include "cpu/levels.h"
#include "operations.h"

namespace {

struct Cpu {
    using Place = nanobind::device::cpu;
    using Launch = int;

    static int launch(std::uintptr_t threads) {
        return threads < 1 ? 1 : threads > 1024 ? 1024 : static_cast<int>(threads);
    }

    template <class Arguments>
    static std::size_t workspace(const Arguments& arguments, int threads) {
        return samg::cpu::workspace(arguments, threads);
    }

    static constexpr auto preprocess = samg::cpu::preprocess;
    static constexpr auto similarity_map = samg::cpu::similarity_map;
    static constexpr auto topk_points = samg::cpu::topk_points;
    static constexpr auto resize_logits = samg::cpu::resize_logits;
    static constexpr auto prompt_assembly = samg::cpu::prompt_assembly;
    static constexpr auto apply_mask = samg::cpu::apply_mask;
};

}  // namespace

NB_MODULE(_engine, module) {
    module.doc() = "The operations of a frame on a CPU. `samg_fast.ops` is the way in.";
    samg::bindings::define_operations<Cpu>(module);
    module.def(
        "instruction_sets",
        [] {
            std::vector<const char*> names;
            for (int i = 0; i < samg::cpu::level_count(); ++i) {
                if (samg::cpu::levels()[i].runs_here()) names.push_back(samg::cpu::levels()[i].name);
            }
            return names;
        },
        "Names of the instruction sets that this build has kernels for and this processor runs, the best first.");
    module.def("instruction_set", [] { return samg::cpu::level().name; }, "Name of the instruction set in use.");
    module.def(
        "use_instruction_set",
        [](const char* name) {
            samg::bindings::require(samg::cpu::use_level(name), "there is no such instruction set here");
        },
        nanobind::arg("name"), "Use another instruction set, in the whole process.");
}
