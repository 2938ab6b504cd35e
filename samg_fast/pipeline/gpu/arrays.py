"""The arrays of a frame on a GPU: their names, their sizes, and where in the arena they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from samg_fast.bundle import Manifest
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.pipeline.gpu.memory import FIXED, Arena, Layout, Spec, aligned
from samg_fast.pipeline.schedule import SCHEDULE, point_rows

if TYPE_CHECKING:
    from cuda.core import Buffer

__all__ = [
    "ANSWER",
    "EXCLUSIVE",
    "RESULT",
    "VARYING",
    "FrameArrays",
    "FrameShape",
    "frame_specs",
    "target_layout",
]

_FLOAT, _INT, _BYTE, _BOOL = (np.dtype(each) for each in (np.float32, np.int32, np.uint8, np.bool_))

ANSWER = ("iou", "box", "area", "chosen", "mask")
"""What the host reads, in one copy. The mask, whose size is the frames', comes last: `VARYING` says why."""

RESULT = (*ANSWER, "masked")
"""What stays on the GPU."""

EXCLUSIVE = ("targets", *RESULT, "frames")
"""Arrays that share their memory with no other, in the order in which they lie there.

Those whose size depends on the frames' size come last: `VARYING` says why.
"""

VARYING = ("similarity", "points")
"""Other arrays whose size depends on the frames' size or the targets' parts.

Networks use none of them, and the places of what networks do use depend on the number of frames alone. This is so for
TensorRT, which has a context for each set of places: they are few.
"""


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


def target_layout(manifest: Manifest, shape: FrameShape) -> dict[str, tuple[int, Spec]]:
    """Return the arrays that lie in ``"targets"``: where each begins, in bytes, and what it is.

    First comes what a network may use, so that its place does not depend on the number of parts.
    """
    batch, _, _, maps = shape
    specs = {
        "target": Spec((batch, manifest.encoder.channels), _FLOAT),  # for a decoder that takes it
        "sam_features": Spec((batch, maps, manifest.encoder.channels), _FLOAT),
        "dino_features": Spec((batch, maps, manifest.features.channels), _FLOAT),
        "weights": Spec((batch, 3), _FLOAT),
    }
    for turn, rule in enumerate(SCHEDULE):
        specs[f"order {turn}"] = specs[f"labels {turn}"] = Spec((batch, rule.points(maps)), _INT)
    found, offset = {}, 0
    for name, spec in specs.items():
        found[name] = (offset, spec)
        offset += aligned(spec.bytes)
    return found


class FrameArrays:
    """The arrays of frames of one shape, in an arena.

    Parameters
    ----------
    cuda : Cuda
        The GPU whose memory they are in.
    arena : Arena
        That holds them.
    manifest : Manifest
        The bundle's.
    shape : FrameShape
    specs : mapping of str to Spec
        Of `frame_specs`.
    layout : Layout
        Where in the arena each of them is.
    """

    def __init__(
        self,
        cuda: Cuda,
        arena: Arena,
        manifest: Manifest,
        shape: FrameShape,
        specs: Mapping[str, Spec],
        layout: Layout,
    ) -> None:
        self._cuda, self._memory, self._specs = cuda, arena.memory, specs
        self._offsets = {name: arena.start + offset for name, offset in layout.offsets.items()}
        self._arrays: dict[str, Array] = {
            name: cuda.place(self._memory, offset, specs[name].shape, specs[name].dtype)
            for name, offset in self._offsets.items()
        }
        for name in FIXED:
            self._arrays[name] = arena.fixed(name, shape.batch)
        self._add_views(manifest, shape)

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

    def _add_views(self, manifest: Manifest, shape: FrameShape) -> None:
        """Add views of arrays, as operations and networks take them."""
        batch, height, width, maps = shape
        side = 4 * manifest.encoder.grid
        plane, size = side * side, height * width

        def view(
            name: str,
            of: str,
            start: int,
            shape: Sequence[int],
            strides: Sequence[int] | None = None,
            dtype: np.dtype[np.generic] = _FLOAT,
        ) -> None:
            self._arrays[name] = self._cuda.place(self._memory, self._offsets[of] + start, shape, dtype, strides)

        for name, (offset, spec) in target_layout(manifest, shape).items():
            view(name, "targets", offset, spec.shape, dtype=spec.dtype)
        view("every map", "similarity", 0, (batch * maps, height, width))
        view("target map", "similarity", 0, (batch, height, width), (maps * size, width, 1))
        for name, rows in point_rows(batch, maps)._asdict().items():
            view(f"points {name}", "points", 8 * rows.start, (rows.stop - rows.start, 1, 2), dtype=_INT)
        view("three masks", "low_res", 4 * plane, (batch, 3, side, side), (4 * plane, plane, side, 1))
        view("three ious", "iou", 4, (batch, 3), (4, 1))
        view("mask input", "settled", 0, (batch, 1, side, side))


def frame_specs(manifest: Manifest, shape: FrameShape, scratch: Mapping[str, int]) -> dict[str, Spec]:
    """Return what every array is that a frame may need; `scratch` is the bytes that each network needs to work in."""
    batch, height, width, maps = shape
    encoder, features = manifest.encoder, manifest.features
    side, slots = 4 * encoder.grid, manifest.slots
    # Room for as many parts as a target may have: what lies behind it is where it always is
    offset, last = list(target_layout(manifest, shape._replace(maps=1 + manifest.max_parts)).values())[-1]
    return {
        "frames": Spec((batch, height, width, 3), _BYTE),
        "targets": Spec((offset + last.bytes,), _BYTE),
        "encoder image": Spec((batch, 3, encoder.side, encoder.side), _FLOAT),
        "features image": Spec((batch, 3, features.side, features.side), _FLOAT),
        "sam": Spec((batch, encoder.channels, encoder.grid, encoder.grid), _FLOAT),
        "dino": Spec((batch, features.channels, features.grid, features.grid), _FLOAT),
        "similarity": Spec((batch, maps, height, width), _FLOAT),
        "points": Spec((point_rows(batch, maps).min_in_box.stop, 2), _INT),
        "coords": Spec((batch, slots, 2), _FLOAT),
        "labels": Spec((batch, slots), _FLOAT),
        "low_res": Spec((batch, 4, side, side), _FLOAT),
        "settled": Spec((batch, side, side), _FLOAT),
        "mask": Spec((batch, height, width), _BOOL),
        "iou": Spec((batch, 4), _FLOAT),
        "box": Spec((batch, 4), _INT),
        "area": Spec((batch,), _INT),
        "chosen": Spec((batch,), _INT),
        "masked": Spec((batch, height, width, 3), _BYTE),
        **{f"{role} scratch": Spec((needed,), _BYTE) for role, needed in scratch.items()},
    }
