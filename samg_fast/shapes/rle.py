"""COCO's compressed run-length encoding of a mask, equal to pycocotools' to the byte."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from samg_fast.checks import Mask

__all__ = ["Rle", "encode"]


class Rle(TypedDict):
    """A mask as pycocotools encodes it, with text in the place of bytes, so that it can go into JSON.

    Attributes
    ----------
    size : list of int
        [H, W].
    counts : str
        Lengths of the runs of 0 and 1, down the columns, in a code of printable characters.
    """

    size: list[int]
    counts: str


def encode(mask: Mask) -> Rle:
    """Encode a mask; `pycocotools.mask.decode` reads it back.

    Parameters
    ----------
    mask : (H, W) bool array

    Notes
    -----
    The code is that of ``rleEncode`` and ``rleToString`` in pycocotools' maskApi.c.
    """
    pixels = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels, prepend=False))
    counts = np.diff(ends, prepend=0, append=pixels.size)
    counts[3:] -= counts[1:-2].copy()  # the third run on is told as the difference to the run of its kind before
    letters = []
    while True:  # five bits a letter, the lowest first, and a sixth that says that more follow
        rest = counts >> 5
        more = rest != np.where(counts & 16, -1, 0)
        letters.append((counts & 31) + 32 * more + 48)
        if not more.any():
            break
        counts = rest
    table = np.stack(letters, axis=1).astype(np.uint8)
    # A number ends with its first letter that says so.
    going_on = (table - 48) & 32 != 0
    used = np.cumprod(going_on, axis=1, dtype=np.bool_)
    used = np.concatenate([np.ones_like(used[:, :1]), used[:, :-1]], axis=1)
    return {"size": list(mask.shape), "counts": table[used].tobytes().decode("ascii")}
