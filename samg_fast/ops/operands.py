"""Arguments of the operations, checked: arrays of any device, and sizes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from samg_fast.checks import check_whole, describe
from samg_fast.devices.base import Array, Device
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops.geometry import Taps

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
    "taps",
    "written",
]

Dtypes: TypeAlias = tuple[np.dtype[Any], ...]
"""The dtypes that an argument may have."""

FLOAT32, INT32, UINT8, BOOL = ((np.dtype(each),) for each in (np.float32, np.int32, np.uint8, np.bool_))
REAL = (np.dtype(np.float32), np.dtype(np.float16))

MAX_PIXELS = 2**29
"""The maximum number of pixels of a frame: kernels index its bytes with 32 bits."""

MAX_CELLS = 2**14
"""The maximum side of a map or a mask, for the same reason."""


def read(
    device: Device, name: str, value: Any, shape: tuple[int | None, ...], dtypes: Dtypes = FLOAT32, first: int = 0
) -> Array:
    """Return an input as an array of the device that is in C order from axis `first` on.

    Raises
    ------
    InputTypeError, InputError
        It is no array of the device, or does not have `shape` (None: any length) and one of the dtypes.
    """
    return device.contiguous(name, _view(device, name, value, shape, dtypes), first)


def written(device: Device, name: str, value: Any, shape: tuple[int, ...], dtypes: Dtypes = FLOAT32) -> Array:
    """Return an output as an array of the device, never a copy.

    Raises
    ------
    InputTypeError, InputError
        It does not have the shape and one of the dtypes, or is not in C order, aligned and writable.
    """
    array = _view(device, name, value, shape, dtypes, written=True)
    if device.contiguous(name, array) is not array or not device.writable(array):
        raise InputError(f"{name} must be aligned, in C order and not read-only, as it is written to")
    return array


def output(device: Device, out: Any, shape: tuple[int, ...], dtypes: Dtypes = FLOAT32, *, name: str = "out") -> Array:
    """Return the argument `out`, checked by `written`; a new array of the first dtype if it is None."""
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
    """Return square maps, of at least one value, as `read` returns an input; `lead` are the axes before the square."""
    array = read(device, name, value, (*lead, None, None), REAL, first)
    if array.shape[-2] != array.shape[-1]:
        _check(array, name, (*lead, array.shape[-2], array.shape[-2]), REAL)
    if 0 in array.shape:
        raise InputError(f"{name} must have at least one value, not shape {tuple(array.shape)}")
    if array.shape[-1] > MAX_CELLS:
        raise InputError(f"{name} must have sides of at most {MAX_CELLS}, not {array.shape[-1]}")
    return array


def check_size(name: str, height: int, width: int) -> None:
    """Check that a frame has at most `MAX_PIXELS`."""
    if height * width > MAX_PIXELS:
        raise InputError(f"{name} must make at most {MAX_PIXELS} pixels, not {height} x {width}")


def check_frame_size(prompt_side: int, height: int, width: int) -> None:
    """Check the sizes of a frame and of its prompt frame."""
    check_whole("prompt_side", prompt_side, 1, MAX_CELLS)
    check_whole("height", height, 1, MAX_PIXELS)
    check_whole("width", width, 1, MAX_PIXELS)
    check_size("height and width", height, width)


def batched(device: Device, array: Array, axes: int) -> Array:
    """Put axes of length 1 in front of an array until it has as many axes as a batch."""
    missing = axes - len(array.shape)
    return device.reshape(array, (*(1,) * missing, *array.shape)) if missing else array


def axes(value: Any) -> int:
    """Return how many axes an array of any device has; 0 for what is no array."""
    return len(getattr(value, "shape", ()))


def taps(device: Device, values: Taps) -> tuple[Array, Array]:
    """Return the sources and weights of cached taps as arrays of the device."""
    return device.constant(values.source), device.constant(values.weight)


def _names(dtypes: Dtypes) -> str:
    return " or ".join(each.name for each in dtypes)


def _lengths(shape: tuple[int | None, ...]) -> str:
    lengths = ", ".join("any" if length is None else str(length) for length in shape)
    return f"({lengths}{',' * (len(shape) == 1)})"
