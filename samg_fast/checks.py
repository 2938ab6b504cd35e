"""Names for the arrays the package passes around, and the checks of arrays and numbers that users pass in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samg_fast.errors import InputError, InputTypeError, first_line

__all__ = [
    "Box",
    "Floats",
    "Frame",
    "Mask",
    "check_box",
    "check_floats",
    "check_frame",
    "check_frames",
    "check_mask",
    "check_number",
    "check_points",
    "check_whole",
    "describe",
    "is_whole",
    "whole_numbers",
]

Frame = NDArray[np.uint8]
"""(H, W, 3) RGB image, or a batch of them."""

Mask = NDArray[np.bool_]
"""(H, W) mask, or a batch of them."""

Floats = NDArray[np.float32]
"""Any float32 array: maps, features, logits."""

Box = tuple[int, int, int, int]
"""(x_min, y_min, x_max, y_max) in pixels of the frame."""


def describe(value: object) -> str:
    """Describe an argument in a few words: its dtype and shape, its value, or its type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{value!r}" if isinstance(value, (int, float, str, type(None))) else type(value).__name__


def check_frame(name: str, value: Any) -> Frame:
    """Return `value` as a frame.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : (H, W, 3) uint8 array

    Raises
    ------
    InputTypeError
        It is not uint8.
    InputError
        It has another shape, or no pixel.
    """
    return _check_image(name, value, "(H, W, 3)", 3)


def check_frames(name: str, value: Any) -> Frame:
    """Return `value` as a batch of frames of one size; see `check_frame`.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : (B, H, W, 3) uint8 array
    """
    return _check_image(name, value, "(B, H, W, 3)", 4)


def check_mask(name: str, value: Any, shape: tuple[int, ...] | None) -> Mask:
    """Return `value` as a mask of a frame's size with at least one pixel set.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : (H, W) bool array
    shape : tuple of int or None
        Shape of the frame that the mask belongs to, whose first two entries count; None where any size is good.

    Raises
    ------
    InputTypeError
        It is not boolean.
    InputError
        It has another size than the frame, or is empty.
    """
    mask = _as_array(name, value, "a (H, W) bool array")
    if mask.dtype != np.bool_:
        raise InputTypeError(
            f"{name} must be a (H, W) bool array, not {describe(mask)} (a grey mask becomes one by `> 0`)"
        )
    if mask.ndim != 2 or (shape is not None and mask.shape != tuple(shape[:2])):
        wanted = "two dimensions" if shape is None else f"the picture's size {tuple(shape[:2])}"
        raise InputError(f"{name} must have {wanted}, not shape {mask.shape}")
    if not mask.any():
        raise InputError(f"{name} is empty: at least one pixel must be set")
    return mask


def check_points(
    name: str, value: Sequence[Sequence[float]] | ArrayLike, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return `value` as points inside a frame.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : sequence of (x, y), (n, 2)
        Pixels of the frame; may be empty.
    shape : tuple of int
        Shape of the frame; the first two entries count.

    Returns
    -------
    (n, 2) float64 array

    Raises
    ------
    InputTypeError
        The entries are not numbers.
    InputError
        The shape is not (n, 2), or a point is NaN or outside the frame.
    """
    expected = "a sequence of (x, y) points"
    try:
        given = np.asarray(value)
    except ValueError:
        raise InputError(f"{name} must be {expected}, not rows of different lengths") from None
    if given.size == 0:
        return np.zeros((0, 2), np.float64)
    if given.dtype.kind not in "iuf":
        raise InputTypeError(f"{name} must be {expected} of numbers, not {describe(given)}")
    if given.ndim != 2 or given.shape[1] != 2:
        raise InputError(f"{name} must be {expected}, of shape (n, 2), not {given.shape}")
    points = given.astype(np.float64)
    height, width = shape[:2]
    for x, y in points:
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):  # a NaN is not inside either
            inside = f"0 <= x <= {width - 1} and 0 <= y <= {height - 1}"
            raise InputError(f"{name} has ({x:g}, {y:g}), which is not a point of the picture: expected {inside}")
    return points


def check_box(name: str, value: Sequence[float] | ArrayLike, shape: tuple[int, ...]) -> Box:
    """Return `value` as a box inside a frame, in whole pixels.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : sequence of 4 float
        (x_min, y_min, x_max, y_max), corners inclusive.
    shape : tuple of int
        Shape of the frame; the first two entries count.

    Raises
    ------
    InputTypeError
        The entries are not numbers.
    InputError
        They are not four, the box has no area, or a corner is outside the frame.
    """
    try:
        given = np.asarray(value)
    except ValueError:
        given = np.zeros(0)
    if given.shape != (4,):
        raise InputError(f"{name} must be four numbers, (x_min, y_min, x_max, y_max), not {value!r}")
    low, high = np.floor(check_points(name, given.reshape(2, 2), shape)).astype(int).tolist()
    if not (low[0] < high[0] and low[1] < high[1]):
        raise InputError(f"{name} has no area: its second corner must lie to the right of the first one and below it")
    return low[0], low[1], high[0], high[1]


def check_floats(name: str, value: Any, shape: tuple[int | None, ...], *, finite: bool = False) -> Floats:
    """Return `value` as a float32 array of a shape, in C order.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : float32 array
    shape : tuple of int or None
        Expected shape; None stands for any length.
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    InputTypeError
        It is not float32.
    InputError
        It has another shape, or holds NaN or infinity where that is refused.
    """
    array = _as_array(name, value, "a float32 array")
    good = array.ndim == len(shape) and all(s is None or s == n for s, n in zip(shape, array.shape, strict=True))
    if not good or array.dtype != np.float32:
        lengths = ", ".join("any" if length is None else str(length) for length in shape)
        message = f"{name} must be float32 of shape ({lengths}{',' * (len(shape) == 1)}), not {describe(array)}"
        raise InputError(message) if array.dtype == np.float32 else InputTypeError(message)
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity: only finite numbers can be used")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_whole(name: str, value: object, minimum: int, maximum: int | None = None, *, otherwise: str = "") -> int:
    """Return `value` as a whole number in a range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int
    minimum : int
    maximum : int, optional
        No bound by default.
    otherwise : str
        What may be given instead, for the message: ``" or None"``.

    Raises
    ------
    InputTypeError
        It is no whole number.
    InputError
        It is out of the range.
    """
    if not is_whole(value):
        raise InputTypeError(f"{name} must be a whole number{otherwise}, not {describe(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise InputError(f"{name} must be {limits}{otherwise}, not {value}")
    return int(value)


def check_number(name: str, value: object, wanted: str, good: Callable[[float], bool]) -> float:
    """Return `value` as a finite number in a range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : float
    wanted : str
        The range in words, for the message: ``"above 0"``.
    good : callable
        Returns whether a finite number is in the range.

    Raises
    ------
    InputTypeError
        It is no number.
    InputError
        It is not finite, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputTypeError(f"{name} must be a number {wanted}, not {describe(value)}")
    number = float(value)
    if not isfinite(number) or not good(number):
        raise InputError(f"{name} must be a number {wanted}, not {number:g}")
    return number


def whole_numbers(text: str, minimum: int = 1) -> list[int]:
    """Read whole numbers separated by commas; an empty list where a part is none, or below `minimum`."""
    parts = [part.strip() for part in text.split(",")]
    good = all(part.isdecimal() and int(part) >= minimum for part in parts)
    return [int(part) for part in parts] if good else []


def _check_image(name: str, value: Any, wanted: str, ndim: int) -> Frame:
    array = _as_array(name, value, f"a {wanted} uint8 array")
    if array.ndim != ndim or array.shape[-1] != 3:
        raise InputError(f"{name} must be a {wanted} uint8 RGB array, not {describe(array)}")
    if array.dtype != np.uint8:
        raise InputTypeError(f"{name} must be a {wanted} uint8 RGB array with values 0..255, not {describe(array)}")
    if 0 in array.shape:
        raise InputError(f"{name} must have at least one pixel, not shape {array.shape}")
    return array


def _as_array(name: str, value: Any, wanted: str) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "__array__"):  # nested lists would be guesses about dtype
        raise InputTypeError(f"{name} must be {wanted}, not {describe(value)}")
    try:
        return np.asarray(value)
    except Exception as error:  # sparse tensors, and those without memory, have errors of their own library's
        raise InputTypeError(
            f"{name} must be {wanted}, and this {type(value).__name__} gives no array: {first_line(error)}"
        ) from error
