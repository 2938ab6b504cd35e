"""Frames in, masks out, on a GPU: one program for every shape of frames, replayed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.backends import DeviceNetwork
from samg_fast.bundle import FittedManifest, Manifest, PromptedManifest, Role
from samg_fast.checks import Frame
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda, dlpack_device, nbytes
from samg_fast.errors import BackendError, InputError, InputTypeError
from samg_fast.pipeline.gpu.arrays import ANSWER, RESULT, FrameShape
from samg_fast.pipeline.gpu.fitted import FittedProgram
from samg_fast.pipeline.gpu.memory import Arena
from samg_fast.pipeline.gpu.program import FrameProgram
from samg_fast.pipeline.gpu.prompted import PromptedProgram
from samg_fast.pipeline.gpu.results import GpuSegmentations, scores_and_boxes
from samg_fast.results import Segmentation
from samg_fast.target import Target

if TYPE_CHECKING:
    from cuda.core import Event

__all__ = ["GpuFrames", "is_on_gpu"]

_MAX_PROGRAMS = 16
"""Shapes of frames whose graphs are kept. An agent uses one or two; a tool may see frames of all sizes."""

_UINT8 = np.dtype(np.uint8)

_GPU_MEMORY = (2, 13)
"""DLPack's numbers for a GPU's memory, and for memory that a GPU and the host share."""


def is_on_gpu(value: Any) -> bool:
    """Return whether an argument is an array in a GPU's memory, by DLPack or ``__cuda_array_interface__``."""
    # DLPack first: PyTorch builds a dictionary whenever it is asked for the other one
    where = dlpack_device(value)
    return hasattr(value, "__cuda_array_interface__") if where is None else where[0] in _GPU_MEMORY


_OPENED = FrameShape(1, 256, 256, 4)
"""A segmenter allocates memory for this shape, at its largest batch, when it opens; smaller shapes need no more."""


class _Prepared:
    """A bound program, its input and output in the arena, and the pinned memory that these are copied through."""

    def __init__(self, program: FrameProgram, cuda: Cuda) -> None:
        arrays, shape = program.arrays, program.shape
        self.program = program
        self.frames, self.pinned_frames = arrays.piece("frames"), cuda.pinned(nbytes(arrays["frames"]))
        self.staged = self.pinned_frames.bytes.reshape(shape.batch, shape.height, shape.width, 3)
        self.has_targets = arrays.get("targets") is not None
        if self.has_targets:
            self.targets, self.pinned_targets = arrays.piece("targets"), cuda.pinned(nbytes(arrays["targets"]))
        self.answer, self.answer_offsets = arrays.piece(*ANSWER), arrays.offsets(ANSWER)
        self.pinned_answer = cuda.pinned(self.answer.size)
        self.result, self.result_offsets = arrays.piece(*RESULT), arrays.offsets(RESULT)
        self.held: tuple[Target, ...] = ()  # the targets in its memory
        self.copied: Event | None = None  # when these have been copied


class GpuFrames:
    """Segments frames on a GPU. Several threads may use it at once; they take turns.

    Parameters
    ----------
    manifest : Manifest
        The bundle's.
    networks : mapping of Role to DeviceNetwork
        The bundle's, opened on `cuda`.
    cuda : Cuda
        The GPU.
    max_batch : int or None
        The largest number of frames at once; None for any number.

    Raises
    ------
    BackendError
        The GPU has too little memory.
    """

    def __init__(
        self, manifest: Manifest, networks: Mapping[Role, DeviceNetwork], cuda: Cuda, max_batch: int | None
    ) -> None:
        self._manifest, self._cuda, self._max_batch = manifest, cuda, max_batch
        self._networks: Mapping[Role, DeviceNetwork] | None = networks
        self._prepared: OrderedDict[FrameShape, _Prepared] = OrderedDict()
        self._last: _Prepared | None = None  # whose arrays are in the arena
        with cuda.use():
            first = self._program(networks, _OPENED._replace(batch=max_batch or 1))
            self._fixed = first.fixed
            self._arena: Arena | None = Arena(cuda, self._fixed, first.shape.batch, first.size)

    def segment(self, frames: Frame, targets: Sequence[Target | None]) -> list[Segmentation]:
        """Segment frames of the host; see `samg_fast.pipeline.host.segment_frames`.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
        targets : sequence of B Target or None
            None where the bundle is fitted to its target.

        Returns
        -------
        list of B Segmentation
            Of the timings there is the ``"total"`` alone: a frame is one launch.
        """
        start = time.perf_counter()
        count = len(frames)
        with self._cuda.use():
            ready = self._ready(frames.shape, targets)
            ready.staged[:count], ready.staged[count:] = frames, frames[-1]
            self._cuda.move(ready.frames, ready.pinned_frames.memory)
            ready.program.launch()
            self._cuda.move(ready.pinned_answer.memory, ready.answer)
            self._cuda.synchronize()
            answer = ready.pinned_answer.bytes.copy()
        batch, offsets = ready.program.shape.batch, ready.answer_offsets
        scores, boxes = scores_and_boxes(answer, offsets, batch, ready.program.ious)
        size = batch * frames.shape[1] * frames.shape[2]
        masks = answer[offsets["mask"] : offsets["mask"] + size].view(np.bool_).reshape(batch, *frames.shape[1:3])
        total = (time.perf_counter() - start) * 1e3 / count
        return [
            Segmentation(
                frame=frames[index].copy(),
                mask=masks[index],
                score=scores[index],
                box=boxes[index],
                timings={"total": total},
                threshold=self._manifest.present,
            )
            for index in range(count)
        ]

    def segment_on_gpu(
        self, name: str, frames: Any, axes: int, targets: Sequence[Target | None], stream: Any
    ) -> GpuSegmentations:
        """Segment frames of the GPU's memory, without waiting for them.

        Parameters
        ----------
        name : str
            What to call the frames in an error.
        frames : (B, H, W, 3) or (H, W, 3) uint8 array of the GPU
        axes : int
            Of the frames: 4, or 3 for a single one.
        targets : sequence of B Target or None
        stream : stream or None
            The caller's: what it holds comes before the frame, and what it gets later after it. None waits instead.

        Returns
        -------
        GpuSegmentations

        Raises
        ------
        InputTypeError, InputError
            The frames are in another GPU's memory, not uint8, not in C order, of another shape or too many, or
            `stream` is none.
        BackendError
            The GPU has too little memory, or fails.
        """
        cuda = self._cuda
        with cuda.use():
            caller = cuda.wrap(stream)
            array = self._check(name, frames, axes, ordered=caller is None)
            count, height, width = (1, *array.shape[:2]) if axes == 3 else array.shape[:3]
            if caller is not None:
                cuda.order(caller, cuda.stream)
            ready = self._ready((count, height, width), targets)
            result = cuda.allocate(ready.result.size, "the result of a frame")
            given = cuda.memory(array)
            for first in range(0, ready.frames.size, given.size):  # a bundle for a fixed batch gets frames twice
                size = min(given.size, ready.frames.size - first)
                cuda.move(cuda.part(ready.frames, first, size), cuda.part(given, 0, size))
            ready.program.launch()
            cuda.move(result, ready.result)
            if caller is None:
                cuda.synchronize()
            else:
                cuda.order(cuda.stream, caller)
            cuda.free_after(caller, result)
            size_of = (count, height, width)
            ious, threshold = ready.program.ious, self._manifest.present
            return GpuSegmentations(cuda, result, ready.result_offsets, size_of, ious, threshold)

    def _check(self, name: str, value: Any, axes: int, *, ordered: bool) -> Array:
        """Return an array of the GPU as it came, if frames are what it is; `ordered` as in `Cuda.view`."""
        array = self._cuda.view(value, ordered=ordered)
        if array is None:
            raise InputError(f"{_wanted(name, axes)} array{self._cuda.where}, and is on another device")
        shape = array.shape
        if array.dtype != _UINT8:
            raise InputTypeError(f"{_wanted(name, axes)} RGB array with values 0..255, not {_found(array)}")
        if len(shape) != axes or shape[-1] != 3 or 0 in shape:
            raise InputError(f"{_wanted(name, axes)} RGB array with at least one pixel, not {_found(array)}")
        if axes == 4 and self._max_batch is not None and shape[0] > self._max_batch:
            raise InputError(
                f"{name} must be at most {self._max_batch} in a GPU's memory, as the networks take no more at once"
            )
        return self._cuda.contiguous(name, array)

    def close(self) -> None:
        """Free memory and graphs."""
        with self._cuda.use():
            self._drop()
            self._networks = None

    def _drop(self) -> None:
        """Free the arena and what is bound to it."""
        self._cuda.synchronize()
        for ready in self._prepared.values():
            ready.program.close()
        self._prepared.clear()
        self._last = self._arena = None

    def _ready(self, frames: Sequence[int], targets: Sequence[Target | None]) -> _Prepared:
        """Return the program for frames of a shape, with the targets written to its memory."""
        batch = self._manifest.batch or frames[0]
        known = [target for target in targets if target is not None]
        shape = FrameShape(batch, frames[1], frames[2], 1 + max([target.parts for target in known], default=0))
        ready = self._prepared.get(shape) or self._prepare(shape)
        self._prepared.move_to_end(shape)
        if ready is not self._last:  # another program has used the arena since
            ready.held = ()
            self._last = ready
        if not ready.has_targets:
            return ready
        whose = (*known, *[known[-1]] * (batch - len(known)))
        if len(whose) != len(ready.held) or not all(map(is_, whose, ready.held)):
            if ready.copied is not None:
                ready.copied.sync()  # until then the pinned memory is read
            ready.program.write_targets(ready.pinned_targets.bytes, whose)
            self._cuda.move(ready.targets, ready.pinned_targets.memory)
            ready.copied = self._cuda.stream.record()
            ready.held = whose
        return ready

    def _program(self, networks: Mapping[Role, DeviceNetwork], shape: FrameShape) -> FrameProgram:
        manifest = self._manifest
        if isinstance(manifest, FittedManifest):
            return FittedProgram(manifest, networks, self._cuda, shape)
        assert isinstance(manifest, PromptedManifest)
        return PromptedProgram(manifest, networks, self._cuda, shape)

    def _prepare(self, shape: FrameShape) -> _Prepared:
        """Make and keep the program of a shape; an arena that is too small for it is replaced."""
        if self._networks is None:
            raise BackendError("this segmenter is closed; load the bundle again")
        if len(self._prepared) == _MAX_PROGRAMS:
            self._cuda.synchronize()
            self._prepared.popitem(last=False)[1].program.close()
        program = self._program(self._networks, shape)
        if self._arena is None or not self._arena.holds(shape.batch, program.size):
            batch, size = (
                (shape.batch, program.size) if self._arena is None else self._arena.grown(shape.batch, program.size)
            )
            # Graphs know the old one's addresses
            self._drop()
            self._arena = Arena(self._cuda, self._fixed, batch, size)
        program.bind(self._arena)
        ready = self._prepared[shape] = _Prepared(program, self._cuda)
        return ready


def _wanted(name: str, axes: int) -> str:
    return f"{name} must be a {'(H, W, 3)' if axes == 3 else '(B, H, W, 3)'} uint8"


def _found(array: Array) -> str:
    return f"{array.dtype} of shape {tuple(array.shape)}"
