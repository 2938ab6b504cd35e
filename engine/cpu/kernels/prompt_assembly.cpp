#include "samg/prompt_assembly.h"

#include "kernels.h"

namespace samg::cpu::SAMG_LEVEL {

std::size_t workspace(const PromptAssembly&, int) { return 0; }

void prompt_assembly(const PromptAssembly& arguments, void*, int) {
    constexpr float first_corner = 2, second_corner = 3, not_a_point = -1, empty = -2;
    for (int frame = 0; frame < arguments.batch; ++frame) {
        const int32_t* points = arguments.points + frame * arguments.point_stride;
        const int32_t* box = arguments.boxes == nullptr ? nullptr : arguments.boxes + static_cast<ptrdiff_t>(frame) * 4;
        const ptrdiff_t prompt = static_cast<ptrdiff_t>(frame) * arguments.count;
        float* coords = arguments.coords + static_cast<ptrdiff_t>(frame) * arguments.slots * 2;
        float* labels = arguments.slot_labels + static_cast<ptrdiff_t>(frame) * arguments.slots;
        for (int slot = 0; slot < arguments.slots; ++slot) {
            const int beyond = slot - arguments.count;  // 0 and 1 are the box's corners
            const int32_t* at = nullptr;
            labels[slot] = empty;
            if (beyond < 0) {
                const int32_t which = arguments.order[prompt + slot];
                if (which >= 0 && which < arguments.points_per_frame) {
                    at = points + 2 * static_cast<ptrdiff_t>(which);
                    labels[slot] = static_cast<float>(arguments.labels[prompt + slot]);
                }
            } else if (box != nullptr && beyond < 2) {
                at = box + 2 * beyond;
                labels[slot] = beyond == 0 ? first_corner : second_corner;
            } else if (box == nullptr && beyond == 0) {
                labels[slot] = not_a_point;
            }
            coords[2 * slot] = at == nullptr ? 0 : static_cast<float>(at[0]) * arguments.scale_x;
            coords[2 * slot + 1] = at == nullptr ? 0 : static_cast<float>(at[1]) * arguments.scale_y;
        }
    }
}

}  // namespace samg::cpu::SAMG_LEVEL
