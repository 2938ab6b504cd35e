"""The polygons around a mask's pieces, along the edges of its pixels: filled, they are the mask again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Mask

__all__ = ["Piece", "Ring", "joined", "polygons"]

Ring = NDArray[np.int32]
"""(n, 2) corners (x, y), from 0 to the frame's width and height; the last one is joined to the first."""

Piece = list[Ring]
"""The ring around a piece of a mask, clockwise as one sees it, then those around its holes, the other way round."""


def polygons(mask: Mask) -> list[Piece]:
    """Return the outlines of a mask's pieces, from top to bottom.

    Pixels that touch at a corner belong to one piece, as in OpenCV. Coordinates are those of the pixels' edges: the
    outline of the pixel (0, 0) is (0, 0), (1, 0), (1, 1), (0, 1).

    Parameters
    ----------
    mask : (H, W) bool array

    Returns
    -------
    list of list of (n, 2) int32 array
        As GeoJSON's MultiPolygon: for every piece, its outer ring and then those of its holes.
    """
    x, y, along_row, along_column = _corners(mask)
    across, down = along_row.tolist(), along_column.tolist()
    points = np.stack([x, y], axis=1).astype(np.int32)
    ring_of = np.full(len(x), -1)
    rings: list[list[int]] = []
    for start in range(len(x)):  # row by row: a ring is met first at its uppermost corner, the left one
        if ring_of[start] >= 0:
            continue
        ring: list[int] = []
        corner = start
        while not ring or corner != start:
            ring += [corner, across[corner]]
            corner = down[across[corner]]
        ring_of[ring] = len(rings)
        rings.append(ring)
    pieces: list[Piece] = []
    piece_of: list[int] = []
    walls = _walls(x, y, along_column)
    for ring in rings:
        column, row = points[ring[0]].tolist()
        if mask[row, column]:
            piece_of.append(len(pieces))
            pieces.append([points[ring]])
        else:  # a hole: what is set to its left reaches to a wall of the same piece
            left, top, bottom, corner_of = walls
            wall = np.flatnonzero((top <= row) & (row < bottom) & (left < column))
            nearest = wall[left[wall].argmax()]
            piece_of.append(piece_of[ring_of[corner_of[nearest]]])
            pieces[piece_of[-1]].append(points[ring[:1] + ring[:0:-1]])
    return pieces


def joined(rings: Sequence[Ring]) -> Ring:
    """Join rings to one, by bridges without width, for formats that have one polygon for an object.

    Filled by the even-odd rule, it covers what the rings do. Each ring is joined to those before it where a corner is
    nearest to one of theirs, as ultralytics joins the parts of an object.

    Parameters
    ----------
    rings : sequence of (n, 2) int32 array
        At least one.

    Returns
    -------
    (n, 2) int32 array
    """
    whole = rings[0]
    for ring in rings[1:]:
        ours, theirs = _nearest(whole, ring)
        there = np.concatenate([np.roll(ring, -theirs, axis=0), ring[theirs : theirs + 1]])
        whole = np.concatenate([whole[: ours + 1], there, whole[ours:]])
    return whole


def _corners(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return x and y of every corner, row by row, and the corner at the other end of its edge in a row and a column.

    Along any line of the grid, corners begin and end edges in turn. A point where two set pixels touch at a corner is
    two corners, matched so that both belong to one ring.
    """
    set_ = np.pad(mask, 1)
    north_west, north_east, south_west, south_east = set_[:-1, :-1], set_[:-1, 1:], set_[1:, :-1], set_[1:, 1:]
    crossing = (north_west == south_east) & (north_east == south_west) & (north_west != north_east)
    odd = north_west ^ north_east ^ south_west ^ south_east
    y, x = np.nonzero(odd | crossing)
    twice = crossing[y, x]
    falling = north_west[y, x]  # of a crossing: it is the north-western and the south-eastern pixel that are set
    order = np.repeat(np.arange(len(x)), 1 + twice)
    second = np.diff(order, prepend=-1) == 0
    x, y = x[order], y[order]
    # The second of two begins an edge to the right. Of a falling pair, it ends the edge from above,
    # else the first does
    lower = np.where(falling[order] & twice[order], ~second, second)
    along_row, along_column = np.empty_like(x), np.empty_like(x)
    for partner, ranked in ((along_row, np.lexsort((second, x, y))), (along_column, np.lexsort((lower, y, x)))):
        begin, end = ranked[::2], ranked[1::2]
        partner[begin], partner[end] = end, begin
    return x, y, along_row, along_column


def _walls(
    x: NDArray[np.intp], y: NDArray[np.intp], along_column: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return x, top, bottom and the upper corner of every upright edge."""
    upper = np.flatnonzero(y < y[along_column])
    return x[upper], y[upper], y[along_column[upper]], upper


def _nearest(a: Ring, b: Ring, block: int = 1024) -> tuple[int, int]:
    """Return the indices of the two corners that are nearest to each other."""
    best = (np.inf, 0, 0)
    for start in range(0, len(a), block):  # not all pairs at once: large masks have thousands of corners
        apart = a[start : start + block, None].astype(np.int64) - b[None]
        far = (apart**2).sum(axis=2)
        at = divmod(int(far.argmin()), len(b))
        best = min(best, (float(far[at]), start + at[0], at[1]))
    return best[1], best[2]
