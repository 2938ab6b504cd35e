"""The operations of a SAM-G frame outside the networks: fast, and strict about their input.

Each operation has one name everywhere: a module and function here, its definition in `samg_fast.ops.reference`, a
kernel in `engine/`. Results agree with the definition within float32 rounding. The operations of every frame run on the
device given as `device` and on its arrays; by default that is `samg_fast.devices.cpu.CPU`, which takes NumPy arrays.
Arrays must be in C order on a GPU; on the CPU, an input that is not is copied. The operations that run once per task,
in `samg_fast.ops.target_features`, take NumPy arrays only.
"""

# Importing a submodule binds its name here to the module; each import below rebinds that name to the function in it.
from samg_fast.ops.apply_mask import apply_mask
from samg_fast.ops.preprocess import preprocess
from samg_fast.ops.prompt_assembly import prompt_assembly
from samg_fast.ops.reference import ResizedLogits
from samg_fast.ops.resize_logits import resize_logits
from samg_fast.ops.similarity_map import MAX_FEATURES, similarity_map
from samg_fast.ops.target_features import mask_cells, mask_feature, masked_picture_cells, point_feature
from samg_fast.ops.topk_points import MAX_POINTS, MAX_VALUES, topk_points

__all__ = [
    "MAX_FEATURES",
    "MAX_POINTS",
    "MAX_VALUES",
    "ResizedLogits",
    "apply_mask",
    "mask_cells",
    "mask_feature",
    "masked_picture_cells",
    "point_feature",
    "preprocess",
    "prompt_assembly",
    "resize_logits",
    "similarity_map",
    "topk_points",
]
