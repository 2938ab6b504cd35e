"""Similarity of a target's features with a frame."""

from __future__ import annotations

from samg_fast.checks import Floats
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError
from samg_fast.ops import operands
from samg_fast.ops.geometry import chain_taps, frame_taps

__all__ = ["MAX_FEATURES", "similarity_map"]

MAX_FEATURES = 64
"""The maximum number of features that `similarity_map` takes at once."""


def similarity_map(
    sam_features: Floats,
    dino_features: Floats,
    sam_map: Floats,
    dino_map: Floats,
    *,
    prompt_side: int,
    height: int,
    width: int,
    out: Array | None = None,
    device: Device = CPU,
) -> Floats:
    """Cosine similarity of K features with every cell of both maps, averaged, at the frame's size.

    The DINO map is resized to G x G before its cells are normalised. The average of both similarities is resized from
    G to 4G and to P, the letterbox's padding is cropped, and what is left is resized to the frame.

    Parameters
    ----------
    sam_features : (K, C1) or (B, K, C1) float32 array
    dino_features : (K, C2) or (B, K, C2) float32 array
        L2-normalised point features, at most `MAX_FEATURES`: shared by all frames, or one set for each frame.
    sam_map : (C1, G, G) or (B, C1, G, G) float32 or float16 array
    dino_map : (C2, g, g) or (B, C2, g, g) float32 or float16 array
        Raw maps, of one frame or of B.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        Size of the frame, in pixels.
    out : (K, height, width) or (B, K, height, width) float32 array, optional
        Where to write; allocated by default.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    (K, height, width) or (B, K, height, width) float32 array
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has the wrong dtype, shape or range, or there are too many features.
    """
    batched = operands.axes(sam_map) == 4
    lead: tuple[int | None, ...] = (None,) if batched else ()
    sam_map = operands.square(device, "sam_map", sam_map, (*lead, None))
    lead = tuple(sam_map.shape[:-3])
    dino_map = operands.square(device, "dino_map", dino_map, (*lead, None))
    each = lead if operands.axes(sam_features) == 3 else ()
    sam_features = operands.read(device, "sam_features", sam_features, (*each, None, sam_map.shape[-3]))
    count = sam_features.shape[-2]
    dino_features = operands.read(device, "dino_features", dino_features, (*each, count, dino_map.shape[-3]))
    if not 1 <= count <= MAX_FEATURES:
        raise InputError(f"sam_features must be from 1 to {MAX_FEATURES} features, not {count}")
    operands.check_frame_size(prompt_side, height, width)
    shape = (*lead, count, height, width)
    result: Floats = operands.output(device, out, shape)
    grid, dino_grid = sam_map.shape[-1], dino_map.shape[-1]
    rows, columns = frame_taps((grid, 4 * grid, prompt_side), height, width)
    device.run(
        "similarity_map",
        *(operands.batched(device, features, 3) for features in (sam_features, dino_features)),
        *(operands.batched(device, maps, 4) for maps in (sam_map, dino_map)),
        operands.taps(device, chain_taps((dino_grid,), dino_grid, grid)),
        operands.taps(device, rows),
        operands.taps(device, columns),
        operands.batched(device, result, 4),
    )
    return result
