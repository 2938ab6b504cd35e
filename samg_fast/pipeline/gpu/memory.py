"""Where the arrays of a frame lie in one piece of a GPU's memory: those that are never needed together share theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ALIGNMENT", "Layout", "Spec", "lay_out"]

ALIGNMENT = 256
"""Bytes; what CUDA's own allocations are aligned to, and TensorRT asks for."""


@dataclass(frozen=True)
class Spec:
    """An array in C order.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """Where arrays lie.

    Parameters
    ----------
    offsets : mapping of str to int
        Bytes from the beginning.
    size : int
        Bytes in all.
    """

    offsets: Mapping[str, int]
    size: int


def lay_out(
    specs: Mapping[str, Spec],
    lives: Mapping[str, tuple[int, int]],
    pinned: Sequence[str] = (),
    varying: Sequence[str] = (),
) -> Layout:
    """Find a place for every array, so that two lie in the same bytes only if they are never alive together.

    Parameters
    ----------
    specs : mapping of str to Spec
    lives : mapping of str to (int, int)
        The first and the last stage in which an array is needed, for those that are not pinned.
    pinned : sequence of str
        Arrays that are always alive; they lie one after the other in this order.
    varying : sequence of str
        Arrays, not pinned, behind all others, whose places therefore do not depend on how large these are.

    Returns
    -------
    Layout
        Arrays that are neither pinned nor varying, those that are pinned, those that vary.
    """
    steady = {name: life for name, life in lives.items() if name not in varying}
    offsets, size = _share(specs, steady, 0)
    for name in pinned:
        offsets[name] = size
        size += _aligned(specs[name].bytes)
    others, size = _share(specs, {name: lives[name] for name in varying}, size)
    return Layout({**offsets, **others}, size)


def _share(specs: Mapping[str, Spec], lives: Mapping[str, tuple[int, int]], start: int) -> tuple[dict[str, int], int]:
    """Place arrays, the largest first, each at the lowest offset that is free for its life; and say where they end."""
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, str]] = []  # from, to, name
    for name in sorted(lives, key=lambda each: (-specs[each].bytes, each)):
        length = _aligned(specs[name].bytes)
        first, last = lives[name]
        at = start
        for begin, end, other in sorted(placed):
            overlaps = lives[other][0] <= last and first <= lives[other][1]
            if overlaps and begin < at + length and at < end:
                at = end
        offsets[name] = at
        placed.append((at, at + length, name))
    return offsets, max((end for _, end, _ in placed), default=start)


def _aligned(size: int) -> int:
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
