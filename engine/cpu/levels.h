// The instruction sets the kernels are compiled for, and which of them runs.
#pragma once

#include "kernels.h"

namespace samg::cpu {

struct Level {
    const char* name;
    Kernels kernels;
    bool (*runs_here)();
};

/// All levels of this build, from the best to the one that runs everywhere.
const Level* levels();
int level_count();

/// The level in use: at first the best that runs here.
const Level& level();

/// Use another level, for tests and comparisons; false if it is not one of this build or does not run here.
bool use_level(const char* name);

}  // namespace samg::cpu
