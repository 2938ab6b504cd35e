"""One piece of a GPU's memory, the arena, and where in it the arrays of a frame lie.

Arrays that are not needed at the same time share a place, and so do frames of different shapes, which take turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda

__all__ = ["ALIGNMENT", "Arena", "Fixed", "Layout", "Spec", "aligned", "lay_out"]

ALIGNMENT = 256
"""Bytes; what CUDA's own allocations are aligned to, and TensorRT asks for."""

Fixed = Mapping[str, tuple[tuple[int, ...], float]]
"""Float32 arrays that no frame writes: name -> (shape without the batch's axis, the value of all its elements)."""


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
    lifetimes: Mapping[str, tuple[int, int]],
    exclusive: Sequence[str] = (),
    varying: Sequence[str] = (),
) -> Layout:
    """Find a place for every array, so that two lie in the same bytes only if they are never needed together.

    Parameters
    ----------
    specs : mapping of str to Spec
    lifetimes : mapping of str to (int, int)
        The first and the last stage in which an array is needed, for those that are not exclusive.
    exclusive : sequence of str
        Arrays that share their memory with no other; they lie one after the other in this order.
    varying : sequence of str
        Arrays, not exclusive, behind all others, whose places therefore do not depend on how large these are.

    Returns
    -------
    Layout
        Arrays that are neither exclusive nor varying, then the exclusive ones, then those that vary.
    """
    steady = {name: stages for name, stages in lifetimes.items() if name not in varying}
    offsets, size = _share(specs, steady, 0)
    for name in exclusive:
        offsets[name] = size
        size += aligned(specs[name].bytes)
    others, size = _share(specs, {name: lifetimes[name] for name in varying}, size)
    return Layout({**offsets, **others}, size)


class Arena:
    """A piece of a GPU's memory.

    It begins with the arrays that no frame writes.

    Parameters
    ----------
    cuda : Cuda
        The GPU.
    fixed : Fixed
        The arrays that no frame writes.
    batch : int
        The largest number of frames at once.
    size : int
        Bytes that a frame's other arrays need; they begin at `start`.

    Attributes
    ----------
    memory : cuda.core.Buffer
    start : int

    Raises
    ------
    BackendError
        The GPU has too little memory.
    """

    def __init__(self, cuda: Cuda, fixed: Fixed, batch: int, size: int) -> None:
        specs = {name: Spec((batch, *shape), np.dtype(np.float32)) for name, (shape, _) in fixed.items()}
        layout = lay_out(specs, {}, [*specs])
        self.start = layout.size
        self.memory = cuda.allocate(layout.size + size, "this segmenter")
        self._batch, self._size = batch, size
        self._cuda, self._specs, self._offsets = cuda, specs, layout.offsets
        for name, (_, value) in fixed.items():
            cuda.copy(self._fixed(name, batch), cuda.upload(np.full(specs[name].shape, value, np.float32)))

    def holds(self, batch: int, size: int) -> bool:
        """Return whether so many frames, whose arrays need so many bytes, fit."""
        return batch <= self._batch and size <= self._size

    def fixed(self, batch: int) -> dict[str, Array]:
        """Return the arrays that no frame writes, for so many frames."""
        return {name: self._fixed(name, batch) for name in self._specs}

    def _fixed(self, name: str, batch: int) -> Array:
        spec = self._specs[name]
        return self._cuda.place(self.memory, self._offsets[name], (batch, *spec.shape[1:]), spec.dtype)

    def grown(self, batch: int, size: int) -> tuple[int, int]:
        """Return the batch and size of an arena that can replace this one and hold these frames too."""
        return max(batch, self._batch), max(size, self._size)


def _share(
    specs: Mapping[str, Spec], lifetimes: Mapping[str, tuple[int, int]], start: int
) -> tuple[dict[str, int], int]:
    """Place arrays, the largest first, each at the lowest offset free in its lifetime; return offsets and the end."""
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, str]] = []  # from, to, name
    for name in sorted(lifetimes, key=lambda each: (-specs[each].bytes, each)):
        length = aligned(specs[name].bytes)
        first, last = lifetimes[name]
        at = start
        for begin, end, other in sorted(placed):
            overlaps = lifetimes[other][0] <= last and first <= lifetimes[other][1]
            if overlaps and begin < at + length and at < end:
                at = end
        offsets[name] = at
        placed.append((at, at + length, name))
    return offsets, max((end for _, end, _ in placed), default=start)


def aligned(size: int) -> int:
    """Return the bytes that something of a size takes up in an arena."""
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
