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

from samg_fast.arrays import Floats
from samg_fast.errors import InputError

__all__ = ["Letterbox", "Taps", "cell_matrix", "chain_matrix", "chain_taps", "resize_matrix"]


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
    """A resize matrix by what is not zero in it.

    Row i of the result is the sum over t of row ``source[t, i]`` times ``weight[t, i]``.

    Parameters
    ----------
    source : (T, n_out) intp array
    weight : (T, n_out, 1) float32 array
        Zero where a row needs fewer than T others. T is 2 for one resize and 3 or 4 for SAM's chains.
    """

    source: NDArray[np.intp]
    weight: Floats

    def apply(self, maps: Floats) -> Floats:
        """Resize the rows of maps (M, n_in, w), giving (M, n_out, w).

        Whole rows are gathered and added, which is faster than the matrix product it stands for; and a product of that
        size would start the BLAS library's threads, which wait, for milliseconds at times, for the cores that the
        backend's threads hold.
        """
        out: Floats = maps.take(self.source[0], axis=1)
        out *= self.weight[0]
        for source, weight in zip(self.source[1:], self.weight[1:], strict=True):
            term = maps.take(source, axis=1)
            term *= weight
            out += term
        return out


@lru_cache(maxsize=256)
def chain_taps(sides: tuple[int, ...], crop: int, n_out: int) -> Taps:
    """Return `chain_matrix` of the same arguments as `Taps`."""
    matrix = chain_matrix(sides, crop, n_out)
    count = int((matrix != 0).sum(axis=1).max())
    # What is not zero comes first, in order, as the sort is stable; shorter rows are filled up with weights of zero.
    source = np.argsort(matrix == 0, axis=1, kind="stable")[:, :count]
    weight = np.take_along_axis(matrix, source, axis=1)
    return Taps(np.ascontiguousarray(source.T), np.ascontiguousarray(weight.T)[..., None])


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
