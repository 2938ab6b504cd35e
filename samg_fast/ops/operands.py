"""The checks of what operations are given: arrays of any device, and sizes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from samg_fast.checks import check_whole, describe
from samg_fast.devices.base import Array, Device
from samg_fast.errors import InputError, InputTypeError

__all__ = [
    "BOOL",
    "FLOAT32",
    "INT32",
    "MAX_CELLS",
    "MAX_PIXELS",
    "REAL",
    "UINT8",
    "Dtypes",
    "axes",
    "batched",
    "check_frame_size",
    "check_size",
    "output",
    "read",
    "square",
    "written",
]

Dtypes: TypeAlias = tuple[np.dtype[Any], ...]
"""What an array may hold."""

FLOAT32, INT32, UINT8, BOOL = ((np.dtype(each),) for each in (np.float32, np.int32, np.uint8, np.bool_))
REAL = (np.dtype(np.float32), np.dtype(np.float16))

MAX_PIXELS = 2**29
"""The most pixels of a frame: kernels count its bytes in 32 bits."""

MAX_CELLS = 2**14
"""The longest side of a map or a mask, for the same reason."""


def read(
    device: Device, name: str, value: Any, shape: tuple[int | None, ...], dtypes: Dtypes = FLOAT32, first: int = 0
) -> Array:
    """Return an argument as an array of the device, if it has the shape (None: any length) and one of the dtypes.

    From axis `first` on it is in C order.
    """
    return device.contiguous(name, _view(device, name, value, shape, dtypes), first)


def written(device: Device, name: str, value: Any, shape: tuple[int, ...], dtypes: Dtypes = FLOAT32) -> Array:
    """Return an array to be written to, if it has the shape and one of the dtypes and is in C order."""
    array = _view(device, name, value, shape, dtypes, written=True)
    if device.contiguous(name, array) is not array or not device.writable(array):
        raise InputError(f"{name} must be aligned, in C order and not read-only, as it is written to")
    return array


def output(device: Device, out: Any, shape: tuple[int, ...], dtypes: Dtypes = FLOAT32, *, name: str = "out") -> Array:
    """Return the argument `out` as `written` does, or a new array of the first dtype if it is None."""
    return device.empty(shape, dtypes[0]) if out is None else written(device, name, out, shape, dtypes)


def _view(
    device: Device, name: str, value: Any, shape: tuple[int | None, ...], dtypes: Dtypes, written: bool = False
) -> Array:
    array = device.view(value, written=written)
    if array is None:
        wanted = f"{_names(dtypes)} of shape {_lengths(shape)}{device.where}"
        raise InputTypeError(f"{name} must be {wanted}, not {describe(value)}")
    _check(array, name, shape, dtypes)
    return array


def _check(array: Array, name: str, shape: tuple[int | None, ...], dtypes: Dtypes) -> None:
    lengths = tuple(array.shape)
    fits = lengths == shape or (
        len(lengths) == len(shape) and all(s is None or s == n for s, n in zip(shape, lengths, strict=True))
    )
    right_dtype = array.dtype in dtypes
    if fits and right_dtype:
        return
    message = f"{name} must be {_names(dtypes)} of shape {_lengths(shape)}, not {array.dtype} of shape {lengths}"
    raise InputError(message) if right_dtype else InputTypeError(message)


def square(device: Device, name: str, value: Any, lead: tuple[int | None, ...], first: int = 0) -> Array:
    """Return an argument as an array whose last two axes are equally long, with at least one value; see `read`."""
    array = read(device, name, value, (*lead, None, None), REAL, first)
    if array.shape[-2] != array.shape[-1]:
        _check(array, name, (*lead, array.shape[-2], array.shape[-2]), REAL)
    if 0 in array.shape:
        raise InputError(f"{name} must have at least one value, not shape {tuple(array.shape)}")
    if array.shape[-1] > MAX_CELLS:
        raise InputError(f"{name} must have sides of at most {MAX_CELLS}, not {array.shape[-1]}")
    return array


def check_size(name: str, height: int, width: int) -> None:
    """Check that a frame is not larger than kernels can count."""
    if height * width > MAX_PIXELS:
        raise InputError(f"{name} must make at most {MAX_PIXELS} pixels, not {height} x {width}")


def check_frame_size(prompt_side: int, height: int, width: int) -> None:
    """Check what says how large a frame is, and its prompt frame."""
    check_whole("prompt_side", prompt_side, 1, MAX_CELLS)
    check_whole("height", height, 1, MAX_PIXELS)
    check_whole("width", width, 1, MAX_PIXELS)
    check_size("height and width", height, width)


def batched(device: Device, array: Array, axes: int) -> Array:
    """Put axes of length 1 in front of an array until it has as many as a batch has."""
    missing = axes - len(array.shape)
    return device.reshape(array, (*(1,) * missing, *array.shape)) if missing else array


def axes(value: Any) -> int:
    """Return how many axes an array of any device has."""
    return len(getattr(value, "shape", ()))


def _names(dtypes: Dtypes) -> str:
    return " or ".join(each.name for each in dtypes)


def _lengths(shape: tuple[int | None, ...]) -> str:
    lengths = ", ".join("any" if length is None else str(length) for length in shape)
    return f"({lengths}{',' * (len(shape) == 1)})"
