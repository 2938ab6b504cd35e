"""Points and boxes to the decoder's prompt."""

from __future__ import annotations

from math import isfinite

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Floats, check_whole, describe
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import operands

__all__ = ["prompt_assembly"]


def prompt_assembly(
    points: NDArray[np.int32],
    order: NDArray[np.int32],
    labels: NDArray[np.int32],
    boxes: NDArray[np.int32] | None,
    *,
    scale: tuple[float, float],
    slots: int,
    out: tuple[Array, Array] | None = None,
    device: Device = CPU,
) -> tuple[Floats, Floats]:
    """Scale points and boxes to the prompt frame and put them into the decoder's slots.

    Parameters
    ----------
    points : (B, n, 2) or (n, 2) int32 array
        (x, y) in pixels of the frame: points of each frame, or one list shared by all frames.
    order : (B, m) int32 array
        Index of the point that goes into each slot; -1, or any index that is out of range, leaves the slot empty.
    labels : (B, m) int32 array
        1 for a positive point, 0 for a negative one.
    boxes : (B, 4) int32 array or None
        (x_min, y_min, x_max, y_max) in pixels of the frame.
    scale : tuple of float
        Pixels of the prompt frame per pixel of the frame, along x and y.
    slots : int
        N: at least m + 2 with boxes, m + 1 without.
    out : tuple of (B, N, 2) and (B, N) float32 arrays, optional
        Where to write; allocated by default.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    point_coords : (B, N, 2) float32 array
        In pixels of the prompt frame, without SAM's +0.5, which is part of the decoder's graph: the points, then the
        box's corners or, without a box, SAM's "not a point" at (0, 0), then empty slots at (0, 0).
    point_labels : (B, N) float32 array
        What each slot holds: 1 or 0 for a point, 2 and 3 for the corners, -1 for "not a point", -2 for an empty slot.
        Both arrays are those of `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has the wrong dtype or shape, `scale` is not finite, or there are too few slots.
    """
    shared = operands.axes(points) == 2
    points = operands.read(device, "points", points, (None, 2) if shared else (None, None, 2), operands.INT32)
    batch = None if shared else points.shape[0]
    order = operands.read(device, "order", order, (batch, None), operands.INT32)
    batch = order.shape[0]
    labels = operands.read(device, "labels", labels, tuple(order.shape), operands.INT32)
    if boxes is not None:
        boxes = operands.read(device, "boxes", boxes, (batch, 4), operands.INT32)
    needed = order.shape[1] + (1 if boxes is None else 2)
    check_whole("slots", slots, needed, operands.MAX_CELLS)
    if len(scale) != 2 or not all(isinstance(each, (int, float, np.floating)) and isfinite(each) for each in scale):
        raise InputError(f"scale must be two finite numbers, not {scale}")
    if out is not None and (not isinstance(out, tuple) or len(out) != 2):
        raise InputTypeError(f"out must be two arrays, for coordinates and for labels, not {describe(out)}")
    into, labels_into = (None, None) if out is None else out
    coords: Floats = operands.output(device, into, (batch, slots, 2), name="out[0]")
    slot_labels: Floats = operands.output(device, labels_into, (batch, slots), name="out[1]")
    device.run(
        "prompt_assembly",
        operands.batched(device, points, 3),
        order,
        labels,
        boxes,
        (float(scale[0]), float(scale[1])),
        coords,
        slot_labels,
    )
    return coords, slot_labels
