"""Where things lie: letterboxed frames, bilinear resizing as small matrices, points in prompt coordinates.

SAM letterboxes a picture: its longest side becomes the network's side, zeros fill the right and the bottom. Bilinear
resizing (align_corners False, no antialias) is linear and separable, so every chain of resizes and crops SAM-G makes is
one small matrix for the rows and one for the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

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
    "pillow_taps",
    "resize_matrix",
]

PILLOW_BITS = 22
"""Bits behind the point in Pillow's sums."""


@dataclass(frozen=True)
class Letterbox:
    """How a frame lies in a square of a given side.

    Parameters
    ----------
    height, width : int
        The frame, in pixels.
    side : int
        The square, in pixels.

    Raises
    ------
    InputError
        The frame is so narrow that nothing of it would be left.
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
        """Bring (..., 2) points (x, y) from pixels of the frame to pixels of the square.

        SAM's +0.5 is not added here: it belongs to the decoder's graph.
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
    return _frozen(_resize(n_in, n_out))


@lru_cache(maxsize=256)
def chain_matrix(sides: tuple[int, ...], crop: int, n_out: int) -> Floats:
    """Return the matrix of a chain of resizes of one axis: side to side, crop, frame.

    A similarity map goes through ``sides = (G, 4 * G, P)``, logits through ``(4 * G, P)``: up to the prompt frame,
    where the part that the frame covers is cropped and resized to the frame.

    Parameters
    ----------
    sides : tuple of int
        The lengths the axis has before the crop, in order.
    crop : int
        How many of the last length's entries are kept.
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
    return _frozen(matrix)


@lru_cache(maxsize=256)
def cell_matrix(n_in: int, new: int, side: int, grid: int) -> Floats:
    """Return the matrix that brings one axis of a frame to a network's grid: letterbox, then resize.

    Parameters
    ----------
    n_in : int
        Length of the frame's axis.
    new : int
        Its length in the letterbox; what is beyond, up to `side`, is zero.
    side, grid : int
        Side of the network's input and of its map.

    Returns
    -------
    (grid, n_in) float32 array
        Read-only, as it is cached.
    """
    return _frozen(_resize(side, grid)[:, :new] @ _resize(n_in, new))


class Taps(NamedTuple):
    """A resize matrix by what is not zero in it, as the kernels take it.

    Entry i of the result is the sum over t of entry ``source[t, i]`` times ``weight[t, i]``.

    Parameters
    ----------
    source : (T, n_out) int32 array
        Each column rises; where an entry needs fewer than T others, its last one is repeated.
    weight : (T, n_out) float32 array
        Zero where a source is repeated. T is 2 for one resize and 3 or 4 for SAM's chains.
    """

    source: NDArray[np.int32]
    weight: Floats


@lru_cache(maxsize=256)
def chain_taps(sides: tuple[int, ...], crop: int, n_out: int) -> Taps:
    """Return `chain_matrix` of the same arguments as `Taps`; read-only, as they are cached."""
    return _taps(chain_matrix(sides, crop, n_out))


@lru_cache(maxsize=256)
def pillow_taps(n_in: int, n_out: int) -> Taps:
    """Return one axis of Pillow's bilinear resize of uint8 pictures; read-only, as they are cached.

    Its filter is a triangle, widened where the picture shrinks. Pillow sums in fixed point with 22 bits behind the
    point, and so do the kernels: the weights here are whole numbers, which float32 holds exactly.

    Parameters
    ----------
    n_in, n_out : int
        Length of the axis before and after.

    Returns
    -------
    Taps
        Weights of an entry sum to about 2^22.
    """
    scale = n_in / n_out
    widened = max(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) * scale
    first = np.maximum((centre - widened + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + widened + 0.5).astype(np.int64), n_in)
    matrix = np.zeros((n_out, n_in), np.float32)
    for row, (low, high, middle) in enumerate(zip(first, last, centre, strict=True)):
        share = np.maximum(1 - np.abs((np.arange(low, high) - middle + 0.5) / widened), 0)
        # Pillow adds and divides one after the other, in double precision
        matrix[row, low:high] = np.floor(share / np.cumsum(share)[-1] * (1 << PILLOW_BITS) + 0.5)
    return _taps(matrix)


def _taps(matrix: Floats) -> Taps:
    """Read the taps off a matrix."""
    count = max(int((matrix != 0).sum(axis=1).max()), 1)
    # What is not zero comes first, in order, as the sort is stable
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    weight = np.take_along_axis(matrix, order, axis=1)
    last = np.maximum((weight != 0).sum(axis=1, keepdims=True) - 1, 0)
    source = np.where(weight != 0, order, np.take_along_axis(order, last, axis=1))
    taps = Taps(np.ascontiguousarray(source.T, np.int32), np.ascontiguousarray(weight.T, np.float32))
    for array in taps:
        array.setflags(write=False)
    return taps


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


def _frozen(matrix: NDArray[np.float64]) -> Floats:
    out = np.ascontiguousarray(matrix, np.float32)
    out.setflags(write=False)
    return out
