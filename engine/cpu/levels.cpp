#include "levels.h"

#include <atomic>
#include <cstring>

namespace samg::cpu {

#define SAMG_DECLARE(level) \
    namespace level {       \
    Kernels kernels();      \
    }

SAMG_DECLARE(baseline)
#ifdef SAMG_X86_LEVELS
SAMG_DECLARE(x86_64_v3)
#endif

namespace {

#ifdef SAMG_X86_LEVELS
bool runs_v3() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("bmi2");
}
#endif

bool runs_anywhere() { return true; }

const Level all[] = {
#ifdef SAMG_X86_LEVELS
    {"x86-64-v3", x86_64_v3::kernels(), runs_v3},
#endif
    {"baseline", baseline::kernels(), runs_anywhere},
};

const Level* best() {
    const Level* found = all;
    while (!found->runs_here()) ++found;
    return found;
}

std::atomic<const Level*>& in_use() {
    static std::atomic<const Level*> level{best()};
    return level;
}

}  // namespace

const Level* levels() { return all; }

int level_count() { return static_cast<int>(sizeof(all) / sizeof(all[0])); }

const Level& level() { return *in_use(); }

bool use_level(const char* name) {
    for (const Level& each : all) {
        if (std::strcmp(each.name, name) == 0 && each.runs_here()) {
            in_use() = &each;
            return true;
        }
    }
    return false;
}

}  // namespace samg::cpu
