"""The highest or lowest points of a map."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Box, Floats, check_whole, describe
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import operands
from samg_fast.ops.geometry import read_only

__all__ = ["MAX_POINTS", "MAX_VALUES", "topk_points"]

MAX_POINTS = 64
"""The maximum number of points that `topk_points` finds in a map."""

MAX_VALUES = 2048 * 2048
"""The maximum number of values of a map that `topk_points` searches."""


def topk_points(
    values: Floats,
    k: int,
    largest: bool,
    box: Box | NDArray[np.int32] | None = None,
    *,
    out: Array | None = None,
    device: Device = CPU,
) -> NDArray[np.int32]:
    """Find the k largest or smallest values of a map, or of each of several maps.

    Parameters
    ----------
    values : (H, W) or (B, H, W) float32 array
        At most `MAX_VALUES` values a map. A NaN counts as minus infinity. A batch may have any first stride.
    k : int
        How many: 1 to min(H * W, `MAX_POINTS`).
    largest : bool
        Whether to find the largest or the smallest values.
    box : tuple or (4,) or (B, 4) int32 array, optional
        (x0, y0, x1, y1): only rows y0 .. y1 - 1 and columns x0 .. x1 - 1 are searched. It may reach beyond the map, and
        is the whole map by default. For several maps, an array has one box for each; a tuple is used for all.
    out : (k, 2) or (B, k, 2) int32 array, optional
        Where to write; allocated by default.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    (k, 2) or (B, k, 2) int32 array
        `out`: (x, y) points, best first; equal values come in row-major order. If the box holds fewer than k pixels,
        the rest are (0, 0), as in the official code.

    Raises
    ------
    InputTypeError, InputError
        `values`, `box` or `out` has the wrong dtype or shape, or `k` is out of range.
    """
    batched = operands.axes(values) == 3
    values = operands.read(device, "values", values, (None,) * (3 if batched else 2), first=int(batched))
    lead, (height, width) = tuple(values.shape[:-2]), values.shape[-2:]
    if 0 in lead:
        raise InputError("values must have at least one map, not 0")
    if not 1 <= height * width <= MAX_VALUES:
        raise InputError(f"values must have from 1 to {MAX_VALUES} values a map, not {height} x {width}")
    check_whole("k", k, 1, min(height * width, MAX_POINTS))
    if not isinstance(largest, (bool, np.bool_)):
        raise InputTypeError(f"largest must be True or False, not {describe(largest)}")
    if isinstance(box, tuple):
        if len(box) != 4 or not all(isinstance(each, (int, np.integer)) for each in box):
            raise InputError(f"box must be four whole numbers (x0, y0, x1, y1), not {box}")
        boxes = device.constant(_boxes(box, *lead))
    elif box is not None:
        boxes = operands.batched(device, operands.read(device, "box", box, (*lead, 4), operands.INT32), 2)
    else:
        boxes = None
    result: NDArray[np.int32] = operands.output(device, out, (*lead, k, 2), operands.INT32)
    device.run(
        "topk_points",
        operands.batched(device, values, 3),
        int(k),
        bool(largest),
        boxes,
        operands.batched(device, result, 3),
    )
    return result


@lru_cache(maxsize=256)
def _boxes(box: Box, count: int = 1) -> NDArray[np.int32]:
    """Return a box repeated for each of `count` maps, its numbers clipped to what an int32 holds."""
    limit = np.iinfo(np.int32)
    return read_only(np.tile(np.clip(np.asarray(box), limit.min, limit.max).astype(np.int32), (count, 1)))
