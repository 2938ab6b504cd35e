"""A frame as launches on a GPU, without a return to the host: what all programs have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.backends import DeviceNetwork
from samg_fast.bundle import ImageSpec, Role
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import CaptureError
from samg_fast.pipeline.gpu.arrays import BYTE, RESULT, FrameArrays, FrameShape
from samg_fast.pipeline.gpu.memory import Arena, Fixed, Spec, lay_out
from samg_fast.target import Target

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import Graph

__all__ = ["FrameProgram", "Step"]

_log = logging.getLogger("samg_fast")


@dataclass(frozen=True)
class Step:
    """Something that is launched, and the names of what it reads and writes."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    launch: Callable[[Stream], None]


class FrameProgram(ABC):
    """The launches of frames of one shape, on arrays in an arena that other programs use in turn.

    Once it has run it is captured as a CUDA graph, where the networks allow that, and is one launch from then on. If
    the GPU refuses the capture, that is logged as a warning, and every frame is launched step by step.

    Parameters
    ----------
    networks : mapping of Role to DeviceNetwork
        The bundle's, opened on `cuda`.
    cuda : Cuda
        The GPU; its stream is where everything is launched, but for what runs beside it.
    shape : FrameShape

    Attributes
    ----------
    shape : FrameShape
    arrays : FrameArrays
        Once it is bound. ``"frames"`` go in, and ``"targets"`` where it has any; `RESULT` comes out.
    exclusive : tuple of str
        Arrays that share their memory with no other, in the order in which they lie there. Those whose size depends on
        the frames' size come last, as those of `varying` do.
    varying : tuple of str
        Other arrays whose size depends on the frames' size or the targets' parts. Networks use none of them, and the
        places of what networks do use depend on the number of frames alone. This is so for TensorRT, which has a
        context for each set of places: they are few.
    ious : int
        Predicted IoUs of a frame: of one mask, or of four, of which the first is not one to choose.
    """

    exclusive: ClassVar[tuple[str, ...]] = (*RESULT, "frames")
    varying: ClassVar[tuple[str, ...]] = ()
    ious: ClassVar[int]
    arrays: FrameArrays

    def __init__(self, networks: Mapping[Role, DeviceNetwork], cuda: Cuda, shape: FrameShape) -> None:
        self.shape = shape
        self._networks, self._cuda = networks, cuda
        needed = {role: network.scratch(shape.batch) for role, network in networks.items()}
        self._scratch = {role: size for role, size in needed.items() if size}
        self._stages = self._make_stages()
        lifetimes = _lifetimes(self._stages, self.exclusive)
        specs = {**self._make_specs(), **{f"{role} scratch": Spec((n,), BYTE) for role, n in self._scratch.items()}}
        self._specs = {name: specs[name] for name in (*self.exclusive, *lifetimes)}
        self._layout = lay_out(self._specs, lifetimes, self.exclusive, self.varying)
        self._capturable = all(network.capturable for network in networks.values())
        self._graph: Graph | None = None
        self._tables: Mapping[int, object] = {}  # that the graph reads

    @property
    @abstractmethod
    def fixed(self) -> Fixed:
        """The arrays that no frame writes."""

    @abstractmethod
    def write_targets(self, memory: NDArray[np.uint8], targets: Sequence[Target]) -> None:
        """Write the frames' targets into the bytes of ``"targets"``; only where it has that array."""

    @abstractmethod
    def _make_stages(self) -> list[tuple[Step, ...]]:
        """List what is launched, in order; the steps of one stage run side by side."""

    @abstractmethod
    def _make_specs(self) -> dict[str, Spec]:
        """Return what every array is, but for what networks need to work in."""

    @abstractmethod
    def _add_views(self) -> None:
        """Add views to the arrays, once they are bound."""

    @property
    def size(self) -> int:
        """Bytes its arrays need in an arena."""
        return self._layout.size

    def bind(self, arena: Arena) -> None:
        """Place its arrays in an arena that is large enough; to be called once, before the first launch."""
        self.arrays = FrameArrays(self._cuda, arena, self.shape.batch, self._specs, self._layout)
        self._add_views()

    @property
    def captured(self) -> bool:
        """Whether it runs as one launch."""
        return self._graph is not None

    def launch(self) -> None:
        """Queue a frame, which turns what lies in ``"frames"``, and in ``"targets"``, into the result.

        Raises
        ------
        BackendError
            A network or the GPU refuses.
        """
        if self._graph is not None:
            self._graph.launch(self._cuda.stream)
            return
        with self._cuda.keeping() as tables:
            self._launch_steps()
            if self._capturable:
                self._capture()
        self._tables = tables

    def close(self) -> None:
        """Free the graph, once everything queued is done."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _capture(self) -> None:
        """Capture the graph, once all steps have run."""
        try:
            self._graph = self._cuda.capture(self._launch_steps)
        except CaptureError as error:
            self._capturable = False
            batch, height, width, _ = self.shape
            size = f"{batch} of {width} x {height} pixels"
            _log.warning("%s; frames like these, %s, are launched step by step, which is slower", error, size)

    def _launch_steps(self) -> None:
        """Queue every step; two steps of one stage run side by side."""
        for stage in self._stages:
            main, *others = stage
            if not others:
                main.launch(self._cuda.stream)
                continue
            (other,) = others
            with self._cuda.beside() as side:
                other.launch(side)
                main.launch(self._cuda.stream)

    def _scratch_of(self, role: Role) -> tuple[str, ...]:
        return (f"{role} scratch",) if role in self._scratch else ()

    def _preprocess(self, specs: Mapping[str, ImageSpec]) -> Step:
        """Return the step that prepares images: name of the array -> what the network that takes it says."""

        def launch(_: Stream) -> None:
            out = [self.arrays[name] for name in specs]
            ops.preprocess(self.arrays["frames"], list(specs.values()), out=out, device=self._cuda)

        return Step("preprocess", ("frames",), tuple(specs), launch)

    def _apply_mask(self) -> Step:
        def launch(_: Stream) -> None:
            ops.apply_mask(self.arrays["frames"], self.arrays["mask"], out=self.arrays["masked"], device=self._cuda)

        return Step("apply_mask", ("frames", "mask"), ("masked",), launch)


def _lifetimes(stages: Sequence[Sequence[Step]], exclusive: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the first and the last stage in which each array is needed, for those that may share their memory."""
    lifetimes: dict[str, tuple[int, int]] = {}
    for stage, steps in enumerate(stages):
        for step in steps:
            for name in {*step.reads, *step.writes} - {*exclusive}:
                lifetimes[name] = (lifetimes.get(name, (stage, stage))[0], stage)
    return lifetimes
