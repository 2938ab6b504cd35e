"""Names for the arrays the package passes around, and the checks of those that callers pass in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samg_fast.errors import InputError, InputTypeError

__all__ = [
    "Box",
    "Floats",
    "Frame",
    "Mask",
    "check_floats",
    "check_frame",
    "check_frames",
    "check_mask",
    "check_points",
    "check_whole",
    "describe",
]

Frame = NDArray[np.uint8]
"""(H, W, 3) RGB picture, or a batch of them."""

Mask = NDArray[np.bool_]
"""(H, W) mask."""

Floats = NDArray[np.float32]
"""Any float32 array: maps, features, logits."""

Box = tuple[int, int, int, int]
"""(x_min, y_min, x_max, y_max) in pixels of the frame."""


def describe(value: object) -> str:
    """Say in a few words what an argument is: its dtype and shape, or its type."""
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
    return _check_picture(name, value, "(H, W, 3)", 3)


def check_frames(name: str, value: Any) -> Frame:
    """Return `value` as a batch of frames of one size; see `check_frame`.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : (B, H, W, 3) uint8 array
    """
    return _check_picture(name, value, "(B, H, W, 3)", 4)


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
        The shape is not (n, 2), or a point is NaN or outside the picture.
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


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check that `value` is a whole number in a range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int
    least : int
    most : int, optional

    Raises
    ------
    InputTypeError
        It is no whole number.
    InputError
        It is less or more.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise InputTypeError(f"{name} must be a whole number, not {describe(value)}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be {limits}, not {value}")


def _check_picture(name: str, value: Any, wanted: str, ndim: int) -> Frame:
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
    return np.asarray(value)
