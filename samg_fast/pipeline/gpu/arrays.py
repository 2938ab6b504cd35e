"""The arrays of a frame on a GPU: their names, their sizes, and where in the arena they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.pipeline.gpu.memory import Arena, Layout, Spec

if TYPE_CHECKING:
    from cuda.core import Buffer

__all__ = ["ANSWER", "BOOL", "BYTE", "FLOAT", "INT", "RESULT", "FrameArrays", "FrameShape", "result_specs"]

FLOAT, INT, BYTE, BOOL = (np.dtype(each) for each in (np.float32, np.int32, np.uint8, np.bool_))

ANSWER = ("iou", "box", "area", "chosen", "mask")
"""What the host reads, in one copy. The mask, whose size is the frames', comes last: see `FrameProgram.varying`."""

RESULT = (*ANSWER, "masked")
"""What stays on the GPU."""


class FrameShape(NamedTuple):
    """All that decides what is launched.

    Parameters
    ----------
    batch, height, width : int
        Of the frames.
    maps : int
        Similarity maps of each frame: the target's, and one for each of its parts.
    """

    batch: int
    height: int
    width: int
    maps: int


def result_specs(shape: FrameShape, ious: int) -> dict[str, Spec]:
    """Return what the frames and the arrays of `RESULT` are; ``"iou"`` has `ious` columns."""
    batch, height, width, _ = shape
    return {
        "frames": Spec((batch, height, width, 3), BYTE),
        "iou": Spec((batch, ious), FLOAT),
        "box": Spec((batch, 4), INT),
        "area": Spec((batch,), INT),
        "chosen": Spec((batch,), INT),
        "mask": Spec((batch, height, width), BOOL),
        "masked": Spec((batch, height, width, 3), BYTE),
    }


class FrameArrays:
    """The arrays of frames of one shape, in an arena.

    Parameters
    ----------
    cuda : Cuda
        The GPU whose memory they are in.
    arena : Arena
        That holds them.
    batch : int
        The number of frames.
    specs : mapping of str to Spec
        What each of them is.
    layout : Layout
        Where in the arena each of them is.
    """

    def __init__(self, cuda: Cuda, arena: Arena, batch: int, specs: Mapping[str, Spec], layout: Layout) -> None:
        self._cuda, self._memory, self._specs = cuda, arena.memory, specs
        self._offsets = {name: arena.start + offset for name, offset in layout.offsets.items()}
        self._arrays: dict[str, Array] = {
            name: cuda.place(self._memory, offset, specs[name].shape, specs[name].dtype)
            for name, offset in self._offsets.items()
        }
        self._arrays |= arena.fixed(batch)

    def __getitem__(self, name: str) -> Array:
        """Return an array by its name."""
        return self._arrays[name]

    def get(self, name: str) -> Array | None:
        """Return an array by its name, if there is one."""
        return self._arrays.get(name)

    def offsets(self, names: Sequence[str]) -> dict[str, int]:
        """Return where neighbouring arrays of `EXCLUSIVE` begin in their piece, in bytes."""
        return {name: self._offsets[name] - self._offsets[names[0]] for name in names}

    def piece(self, *names: str) -> Buffer:
        """Return the memory of neighbouring arrays of `EXCLUSIVE`, such as `ANSWER` or `RESULT`, in one piece."""
        size = self.offsets(names)[names[-1]] + self._specs[names[-1]].bytes
        return self._cuda.part(self._memory, self._offsets[names[0]], size)

    def add_view(
        self,
        name: str,
        of: str,
        start: int,
        shape: Sequence[int],
        strides: Sequence[int] | None = None,
        dtype: np.dtype[np.generic] = FLOAT,
    ) -> None:
        """Add a view of an array, from a byte in it on, as operations and networks take it."""
        self._arrays[name] = self._cuda.place(self._memory, self._offsets[of] + start, shape, dtype, strides)
