"""Frames to network inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import DTypeLike

from samg_fast.bundle import ImageSpec
from samg_fast.checks import Floats, Frame, describe
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError
from samg_fast.ops import operands
from samg_fast.ops.geometry import Letterbox, Taps, chain_taps, pillow_taps, read_only

__all__ = ["preprocess"]


def preprocess(
    frames: Frame,
    specs: Sequence[ImageSpec],
    *,
    out: Sequence[Array] | None = None,
    dtype: DTypeLike = np.float32,
    device: Device = CPU,
) -> list[Floats]:
    """Turn frames into the input of one network, or of two in one pass: letterbox, normalise, pad right and bottom.

    Parameters
    ----------
    frames : (B, H, W, 3) uint8 array
        RGB.
    specs : sequence of one or two ImageSpec
        Their `side`, `mean`, `std` and `resize` are used. ``"uint8"`` resizes with Pillow's bilinear filter, columns
        first, rounding to uint8 after each axis (SAM); ``"float"`` divides by 255 and resizes in float32 (DINOv2). The
        padding is zero after normalisation.
    out : sequence of (B, 3, side, side) float32 or float16 arrays, optional
        Where to write, one array for each network; allocated by default.
    dtype : dtype
        float32 or float16: of the arrays that are allocated.
    device : Device
        Where the arrays are and the kernel runs.

    Returns
    -------
    list of (B, 3, side, side) arrays
        `out`. The resize of ``"uint8"`` equals Pillow's to the bit. float16 values are rounded once, from float32.

    Raises
    ------
    InputTypeError, InputError
        `frames` are not uint8 RGB images, there are not one or two `specs`, or `out` or `dtype` does not fit.
    """
    frames = operands.read(device, "frames", frames, (None, None, None, 3), operands.UINT8)
    if 0 in frames.shape:
        raise InputError(f"frames must have at least one pixel, not shape {tuple(frames.shape)}")
    if not 1 <= len(specs) <= 2:
        raise InputError(f"specs must be one or two, not {len(specs)}")
    batch, height, width, _ = frames.shape
    operands.check_size("frames", height, width)
    shapes = [(batch, 3, spec.side, spec.side) for spec in specs]
    if out is None:
        if dtype not in (np.float32, np.float16, "float32", "float16"):
            raise InputError(f"dtype must be float32 or float16, not {dtype}")
        out = [device.empty(shape, dtype) for shape in shapes]
    elif not isinstance(out, (list, tuple)) or len(out) != len(specs):
        raise InputError(f"out must be a list of {len(specs)} arrays, one for each network, not {describe(out)}")
    else:
        names = ["out"] if len(out) == 1 else [f"out[{index}]" for index in range(len(out))]
        out = [operands.written(device, *each, operands.REAL) for each in zip(names, out, shapes, strict=True)]
    inputs = []
    for spec, array in zip(specs, out, strict=True):
        fixed_point = spec.resize == "uint8"
        rows, columns = _letterbox_taps(fixed_point, spec.side, height, width)
        levels = device.constant(_levels(spec.mean, spec.std))
        inputs.append((fixed_point, operands.taps(device, rows), operands.taps(device, columns), levels, array))
    device.run("preprocess", frames, inputs)
    return list(out)


@lru_cache(maxsize=64)
def _letterbox_taps(fixed_point: bool, side: int, height: int, width: int) -> tuple[Taps, Taps]:
    """Return rows and columns of the resize that letterboxes a frame: as Pillow's fixed point, or in float."""
    box = Letterbox(height, width, side)
    if fixed_point:
        return pillow_taps(height, box.new_height), pillow_taps(width, box.new_width)
    return chain_taps((height,), height, box.new_height), chain_taps((width,), width, box.new_width)


@lru_cache(maxsize=64)
def _levels(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Floats:
    """Return the normalised value of each byte of each channel, (3, 256)."""
    byte = np.arange(256, dtype=np.float32) / np.float32(255)
    return read_only((byte - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None])
