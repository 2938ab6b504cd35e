"""Masked observations."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from samg_fast.checks import Frame, Mask
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.ops import operands
from samg_fast.ops.geometry import read_only

__all__ = ["apply_mask"]


def apply_mask(
    frame: Frame,
    mask: Mask,
    background: Frame | None = None,
    *,
    out: Array | None = None,
    device: Device = CPU,
) -> Frame:
    """Masked observation: the frame where the mask is set, the background elsewhere.

    Parameters
    ----------
    frame : (H, W, 3) or (B, H, W, 3) uint8 array
        RGB.
    mask : (H, W) or (B, H, W) bool array
    background : (3,), (H, W, 3) or (B, H, W, 3) uint8 array, optional
        A colour, an image for all frames, or an image for each frame; black by default.
    out : array of the frame's shape, uint8, optional
        Where to write; allocated by default. It may be `frame` itself.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    array of the frame's shape, uint8
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has the wrong dtype or shape.
    """
    batched = operands.axes(frame) == 4
    frame = operands.read(device, "frame", frame, (*(None,) * (3 if batched else 2), 3), operands.UINT8)
    shape = tuple(frame.shape)
    operands.check_size("frame", *shape[-3:-1])
    mask = operands.read(device, "mask", mask, shape[:-1], operands.BOOL)
    if background is None:
        background = device.constant(_black())
    else:
        wanted = (3,) if operands.axes(background) == 1 else shape if operands.axes(background) == 4 else shape[-3:]
        background = operands.read(device, "background", background, wanted, operands.UINT8)
    result: Frame = operands.output(device, out, shape, operands.UINT8)
    arrays = (operands.batched(device, each, 4) for each in (background, result))
    device.run("apply_mask", operands.batched(device, frame, 4), operands.batched(device, mask, 3), *arrays)
    return result


@lru_cache(maxsize=1)
def _black() -> Frame:
    return read_only(np.zeros((1, 1, 1, 3), np.uint8))
