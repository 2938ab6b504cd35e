"""Frames in, masks out, on a GPU: one program for every shape of frames, replayed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.arrays import Frame
from samg_fast.bundle import Manifest
from samg_fast.cuda_device import Cuda, nbytes
from samg_fast.device import Array
from samg_fast.errors import BackendError, InputError, InputTypeError
from samg_fast.gpu.arena import Arena
from samg_fast.gpu.arrays import ANSWER, DECODES, RESULT, FrameShape, target_layout
from samg_fast.gpu.frame import FrameProgram, GpuNetworks, point_slots
from samg_fast.gpu.results import GpuSegmentations, scores_and_boxes
from samg_fast.results import Segmentation
from samg_fast.target import Target

if TYPE_CHECKING:
    from cuda.core import Event

__all__ = ["GpuFrames", "is_on_gpu"]

_MOST_PROGRAMS = 16
"""Shapes of frames whose memory and graph are kept: an agent has one or two, and a tool that sees all sizes an end."""

_DLPACK_CUDA = 2


def is_on_gpu(value: Any) -> bool:
    """Say whether an argument is an array in a GPU's memory, by ``__cuda_array_interface__`` or DLPack."""
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "__cuda_array_interface__"):
        return True
    try:
        return bool(value.__dlpack_device__()[0] == _DLPACK_CUDA)
    except (AttributeError, TypeError, BufferError):
        return False


_OPENED = FrameShape(1, 256, 256, 4)
"""What memory is allocated for when a segmenter opens, at its largest batch: anything that fits into that."""


class _Prepared:
    """A bound program, the pinned memory before and behind it, and whose targets it holds."""

    def __init__(self, program: FrameProgram, cuda: Cuda) -> None:
        self.program = program
        self.frames = cuda.pinned(nbytes(program.arrays["frames"]))
        self.targets = cuda.pinned(nbytes(program.arrays["targets"]))
        self.result = program.arrays.piece(RESULT)
        self.answer = program.arrays.piece(ANSWER)
        self.answered = cuda.pinned(nbytes(self.answer))
        self.held: tuple[Target, ...] = ()
        self.copied: Event | None = None  # of the targets


class GpuFrames:
    """Segments frames on a GPU. Several threads may use it at once; they take turns.

    Parameters
    ----------
    manifest : Manifest
        The bundle's.
    networks : GpuNetworks
        Opened on `cuda`.
    cuda : Cuda
        The GPU.
    most : int or None
        The most frames at once; None for any number.

    Raises
    ------
    BackendError
        The GPU has too little memory.
    """

    def __init__(self, manifest: Manifest, networks: GpuNetworks, cuda: Cuda, most: int | None) -> None:
        self._manifest, self._cuda = manifest, cuda
        self._networks: GpuNetworks | None = networks
        self._prepared: OrderedDict[FrameShape, _Prepared] = OrderedDict()
        self._last: _Prepared | None = None  # whose arrays are in the arena
        with cuda.use():
            first = FrameProgram(manifest, networks, cuda, _OPENED._replace(batch=most or 1))
            self._arena: Arena | None = Arena(cuda, manifest, first.shape.batch, first.size)

    def segment(self, frames: Frame, targets: Sequence[Target]) -> list[Segmentation]:
        """Segment frames of the host; see `samg_fast.frames.segment_frames`.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array
        targets : sequence of B Target

        Returns
        -------
        list of B Segmentation
            Of the timings there is the ``"total"`` alone: a frame is one launch.
        """
        start = time.perf_counter()
        count = len(frames)
        with self._cuda.use():
            ready = self._ready(frames.shape, targets)
            program = ready.program
            staged = ready.frames.bytes[: nbytes(program.arrays["frames"])].reshape(-1, *frames.shape[1:])
            staged[:count], staged[count:] = frames, frames[-1]
            self._cuda.copy_in(program.arrays["frames"], ready.frames)
            program.launch()
            self._cuda.copy_out(ready.answered, ready.answer)
            self._cuda.synchronize()
            answer = ready.answered.bytes.copy()
        batch, offsets = program.shape.batch, program.arrays.offsets(ANSWER)
        scores, boxes = scores_and_boxes(answer, offsets, batch)
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
            )
            for index in range(count)
        ]

    def segment_on_gpu(self, frames: Array, targets: Sequence[Target], stream: Any) -> GpuSegmentations:
        """Segment frames of the GPU's memory, without waiting for them.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array of the GPU
            As `check` returned it.
        targets : sequence of B Target
        stream : stream or None
            The caller's: what it holds comes before the frame, and what it gets later after it. None waits instead.

        Returns
        -------
        GpuSegmentations
        """
        cuda = self._cuda
        with cuda.use():
            caller = cuda.wrap(stream)
            if caller is not None:
                cuda.stream.wait(caller)
            ready = self._ready(frames.shape, targets)
            program = ready.program
            count, shape = frames.shape[0], program.shape
            for first in range(0, shape.batch, count):  # a bundle for a fixed batch gets frames twice
                some = min(count, shape.batch - first)
                cuda.copy(cuda.rows(program.arrays["frames"], first, some), cuda.rows(frames, 0, some))
            program.launch()
            result = cuda.empty((nbytes(ready.result),), np.uint8)
            cuda.copy(result, ready.result)
            done = cuda.stream.record()
            if caller is None:
                done.sync()
            else:
                caller.wait(done)
            cuda.free_after(caller, result)
            size = count, shape.height, shape.width
            return GpuSegmentations(cuda, result, program.arrays.offsets(RESULT), size)

    def check(self, name: str, value: Any, axes: int) -> Array:
        """Return an array of the GPU as frames (B, H, W, 3), or one frame as a batch of one.

        Raises
        ------
        InputTypeError, InputError
            It is in another GPU's memory, not uint8, not in C order, or has another shape.
        """
        wanted = "(H, W, 3)" if axes == 3 else "(B, H, W, 3)"
        with self._cuda.use():
            array = self._cuda.view(value)
            if array is None:
                raise InputError(f"{name} must be a {wanted} uint8 array{self._cuda.where}, and is on another device")
            found = f"{array.dtype} of shape {tuple(array.shape)}"
            if array.dtype != np.uint8:
                raise InputTypeError(f"{name} must be a {wanted} uint8 RGB array with values 0..255, not {found}")
            if len(array.shape) != axes or array.shape[-1] != 3 or 0 in array.shape:
                raise InputError(f"{name} must be a {wanted} uint8 RGB array with at least one pixel, not {found}")
            array = self._cuda.contiguous(name, array)
            return array if axes == 4 else self._cuda.reshape(array, (1, *array.shape))

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

    def _ready(self, frames: Sequence[int], targets: Sequence[Target]) -> _Prepared:
        """Return the program for frames of a shape, with the targets in its memory."""
        batch = self._manifest.batch or frames[0]
        shape = FrameShape(batch, frames[1], frames[2], 1 + max(target.parts for target in targets))
        ready = self._prepared.get(shape) or self._prepare(shape)
        self._prepared.move_to_end(shape)
        if ready is not self._last:  # another program has used the arena since
            ready.held = ()
            self._last = ready
        whose = (*targets, *[targets[-1]] * (batch - len(targets)))
        if len(whose) != len(ready.held) or any(a is not b for a, b in zip(whose, ready.held, strict=True)):
            if ready.copied is not None:
                ready.copied.sync()  # until then the pinned memory is read
            _write_targets(self._manifest, ready, whose)
            self._cuda.copy_in(ready.program.arrays["targets"], ready.targets)
            ready.copied = self._cuda.stream.record()
            ready.held = whose
        return ready

    def _prepare(self, shape: FrameShape) -> _Prepared:
        """Make and keep the program of a shape; an arena that is too small for it is replaced."""
        if self._networks is None:
            raise BackendError("this segmenter is closed; load the bundle again")
        if len(self._prepared) == _MOST_PROGRAMS:
            self._cuda.synchronize()
            self._prepared.popitem(last=False)[1].program.close()
        program = FrameProgram(self._manifest, self._networks, self._cuda, shape)
        if self._arena is None or not self._arena.holds(shape.batch, program.size):
            batch, size = (
                (shape.batch, program.size) if self._arena is None else self._arena.grown(shape.batch, program.size)
            )
            # Graphs know the old one's addresses
            self._drop()
            self._arena = Arena(self._cuda, self._manifest, batch, size)
        program.bind(self._arena)
        ready = self._prepared[shape] = _Prepared(program, self._cuda)
        return ready


def _write_targets(manifest: Manifest, ready: _Prepared, targets: Sequence[Target]) -> None:
    """Write targets as the program reads them: features of fewer parts than others have are followed by zeros."""
    program, memory = ready.program, ready.targets.bytes
    memory[:] = 0
    arrays = {
        name: memory[offset : offset + spec.bytes].view(spec.dtype).reshape(spec.shape)
        for name, (offset, spec) in target_layout(manifest, program.shape).items()
    }
    for index, target in enumerate(targets):
        arrays["sam_features"][index, : 1 + target.parts] = target.all_sam
        arrays["dino_features"][index, : 1 + target.parts] = target.all_dino
        arrays["weights"][index] = target.mask_weights
        for turn in range(DECODES):
            slots = point_slots(program.shape, index, target.parts, turn)
            arrays[f"order {turn}"][index], arrays[f"labels {turn}"][index] = slots
