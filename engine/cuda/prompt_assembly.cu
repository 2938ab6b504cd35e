#include "launch.h"
#include "samg/prompt_assembly.h"

namespace samg::cuda {
namespace {

constexpr int threads = 128;

/// One thread a slot.
__global__ void __launch_bounds__(threads) prompt_assembly_kernel(PromptAssembly args, std::size_t slots) {
    const std::size_t index = static_cast<std::size_t>(blockIdx.x) * threads + threadIdx.x;
    if (index >= slots) return;
    const std::size_t frame = index / args.slots;
    const int slot = static_cast<int>(index % args.slots);

    const std::int32_t* place = nullptr;
    float label = -2;
    if (slot < args.count) {
        const std::size_t at = frame * args.count + slot;
        const int point = args.order[at];
        if (point >= 0 && point < args.points_per_frame) {
            place = args.points + frame * args.point_stride + 2 * point;
            label = static_cast<float>(args.labels[at]);
        }
    } else if (args.boxes == nullptr) {
        if (slot == args.count) label = -1;
    } else if (slot < args.count + 2) {
        const int corner = slot - args.count;
        place = args.boxes + 4 * frame + 2 * corner;
        label = static_cast<float>(2 + corner);
    }
    args.coords[2 * index] = place == nullptr ? 0 : static_cast<float>(place[0]) * args.scale_x;
    args.coords[2 * index + 1] = place == nullptr ? 0 : static_cast<float>(place[1]) * args.scale_y;
    args.slot_labels[index] = label;
}

}  // namespace

std::size_t workspace(const PromptAssembly&) { return 0; }

void prompt_assembly(const PromptAssembly& args, void*, Stream stream) {
    const std::size_t slots = static_cast<std::size_t>(args.batch) * args.slots;
    Launcher{"prompt_assembly", stream}(prompt_assembly_kernel, pieces(slots, threads), threads, args, slots);
}

}  // namespace samg::cuda
