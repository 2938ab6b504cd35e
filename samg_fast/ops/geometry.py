"""Geometry of a frame: its letterbox, and resizing as small matrices.

SAM letterboxes an image: its longest side becomes the network's side, zeros fill the right and the bottom. Bilinear
resizing (align_corners False, no antialias) is linear and separable, so each chain of resizes and crops in SAM-G is one
small matrix for the rows and one for the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Floats
from samg_fast.errors import InputError

__all__ = [
    "PILLOW_BITS",
    "Letterbox",
    "Taps",
    "cell_matrix",
    "chain_matrix",
    "chain_taps",
    "frame_taps",
    "pillow_taps",
    "read_only",
    "resize_matrix",
]

PILLOW_BITS = 22
"""Fractional bits of the fixed-point numbers that Pillow resizes with."""

_Array = TypeVar("_Array", bound=NDArray[np.generic])


@dataclass(frozen=True)
class Letterbox:
    """A frame scaled to fit into the top left of a square.

    Parameters
    ----------
    height, width : int
        Size of the frame, in pixels.
    side : int
        Side of the square, in pixels.

    Raises
    ------
    InputError
        The frame is so narrow that less than one pixel of it would be left.
    """

    height: int
    width: int
    side: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or min(self.new_height, self.new_width) < 1:
            size = f"{self.height} rows and {self.width} columns"
            raise InputError(f"a picture of {size} is too narrow: less than a pixel of it is left at side {self.side}")

    @property
    def new_height(self) -> int:
        """Rows of the square that the frame covers, rounded half up as SAM does."""
        return int(self.height * self.side / max(self.height, self.width) + 0.5)

    @property
    def new_width(self) -> int:
        """Columns of the square that the frame covers, rounded half up as SAM does."""
        return int(self.width * self.side / max(self.height, self.width) + 0.5)

    @property
    def scale_x(self) -> float:
        """Columns of the square per column of the frame."""
        return self.new_width / self.width

    @property
    def scale_y(self) -> float:
        """Rows of the square per row of the frame."""
        return self.new_height / self.height

    def points(self, points: NDArray[np.number]) -> NDArray[np.float64]:
        """Scale (..., 2) points (x, y) from pixels of the frame to pixels of the square.

        SAM's +0.5 is not added here: it is part of the decoder's graph.
        """
        return np.asarray(points, np.float64) * (self.scale_x, self.scale_y)


@lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int) -> Floats:
    """Return the matrix of a bilinear resize of one axis, align_corners False, without antialias.

    Parameters
    ----------
    n_in, n_out : int
        Length of the axis before and after.

    Returns
    -------
    (n_out, n_in) float32 array
        Rows sum to 1. Read-only, as it is cached.
    """
    return _read_only_float32(_resize(n_in, n_out))


@lru_cache(maxsize=256)
def chain_matrix(sides: tuple[int, ...], crop: int, n_out: int) -> Floats:
    """Return the matrix of a chain of resizes of one axis, from a square map to the frame.

    The axis is resized from each side to the next, cropped to what the frame covers, and resized to the frame. The
    sides of a similarity map are ``(G, 4 * G, P)``, those of logits ``(4 * G, P)``.

    Parameters
    ----------
    sides : tuple of int
        Lengths of the axis before the crop, in order.
    crop : int
        How many entries the crop keeps of the last length.
    n_out : int
        Length of the frame's axis.

    Returns
    -------
    (n_out, sides[0]) float32 array
        Rows sum to 1. Read-only, as it is cached.
    """
    matrix = np.zeros((n_out, sides[-1]))
    matrix[:, :crop] = _resize(crop, n_out)
    for n_in, n_next in reversed(list(pairwise(sides))):
        matrix = matrix @ _resize(n_in, n_next)
    return _read_only_float32(matrix)


@lru_cache(maxsize=256)
def cell_matrix(n_in: int, new: int, side: int, grid: int) -> Floats:
    """Return the matrix that resizes one axis of a frame to its letterbox, and that to a network's grid.

    Parameters
    ----------
    n_in : int
        Length of the frame's axis.
    new : int
        Length of the frame in the letterbox; the rest, up to `side`, is zero.
    side, grid : int
        Sides of the network's input and of its map.

    Returns
    -------
    (grid, n_in) float32 array
        Read-only, as it is cached.
    """
    return _read_only_float32(_resize(side, grid)[:, :new] @ _resize(n_in, new))


class Taps(NamedTuple):
    """The non-zero entries of a resize matrix, in the layout that the kernels read.

    Output i is the sum over t of ``weight[t, i]`` times input ``source[t, i]``. T, the maximum number of inputs of an
    output, is 2 for one resize and 3 or 4 for SAM's chains.

    Parameters
    ----------
    source : (T, n_out) int32 array
        Indices of the inputs, ascending in each column. An output of fewer than T inputs repeats its last one.
    weight : (T, n_out) float32 array
        Zero where a source is repeated.
    """

    source: NDArray[np.int32]
    weight: Floats


@lru_cache(maxsize=256)
def chain_taps(sides: tuple[int, ...], crop: int, n_out: int) -> Taps:
    """Return `chain_matrix` of the same arguments as `Taps`; read-only, as they are cached."""
    return _taps(chain_matrix(sides, crop, n_out))


@lru_cache(maxsize=64)
def frame_taps(sides: tuple[int, ...], height: int, width: int) -> tuple[Taps, Taps]:
    """Return the taps of rows and of columns that bring square maps, through `sides`, to a frame; see `chain_matrix`.

    The last side is that of the prompt frame, which letterboxes the frame of `height` and `width`.
    """
    box = Letterbox(height, width, sides[-1])
    return chain_taps(sides, box.new_height, height), chain_taps(sides, box.new_width, width)


@lru_cache(maxsize=256)
def pillow_taps(n_in: int, n_out: int) -> Taps:
    """Return the taps of one axis of Pillow's bilinear resize of uint8 images; read-only, as they are cached.

    Its filter is a triangle, which is widened where the image shrinks. Pillow sums in fixed point with `PILLOW_BITS`
    fractional bits, and so do the kernels: the weights are whole numbers that float32 holds exactly.

    Parameters
    ----------
    n_in, n_out : int
        Length of the axis before and after.

    Returns
    -------
    Taps
        The weights of an output sum to about 2^22.
    """
    scale = n_in / n_out
    widened = max(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) * scale
    first = np.maximum((centre - widened + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + widened + 0.5).astype(np.int64), n_in)
    matrix = np.zeros((n_out, n_in), np.float32)
    for row, (low, high, middle) in enumerate(zip(first, last, centre, strict=True)):
        share = np.maximum(1 - np.abs((np.arange(low, high) - middle + 0.5) / widened), 0)
        # As Pillow does: the sum in double precision, from left to right, then the division
        matrix[row, low:high] = np.floor(share / np.cumsum(share)[-1] * (1 << PILLOW_BITS) + 0.5)
    return _taps(matrix)


def _taps(matrix: Floats) -> Taps:
    """Return the non-zero entries of a matrix."""
    count = max(int((matrix != 0).sum(axis=1).max()), 1)
    # Non-zero entries come first and keep their order, as the sort is stable
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    weight = np.take_along_axis(matrix, order, axis=1)
    last = np.maximum((weight != 0).sum(axis=1, keepdims=True) - 1, 0)
    source = np.where(weight != 0, order, np.take_along_axis(order, last, axis=1))
    return Taps(
        read_only(np.ascontiguousarray(source.T, np.int32)), read_only(np.ascontiguousarray(weight.T, np.float32))
    )


def _resize(n_in: int, n_out: int) -> NDArray[np.float64]:
    centre = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0)
    low = np.minimum(centre.astype(np.intp), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    share = centre - low
    rows = np.arange(n_out)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (rows, low), 1.0 - share)
    np.add.at(matrix, (rows, high), share)  # at the last pixel both neighbours are the same one
    return matrix


def read_only(array: _Array) -> _Array:
    """Make an array that is cached read-only, and return it."""
    array.setflags(write=False)
    return array


def _read_only_float32(matrix: NDArray[np.float64]) -> Floats:
    return read_only(np.ascontiguousarray(matrix, np.float32))
