"""The SAM-G frame as launches on a GPU: what `samg_fast.pipeline.host` does, without a return to the host."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from samg_fast import ops
from samg_fast.backends import DeviceNetwork
from samg_fast.bundle import Manifest
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import CaptureError
from samg_fast.ops.geometry import Letterbox
from samg_fast.ops.reference import ResizedLogits
from samg_fast.pipeline.gpu.arrays import EXCLUSIVE, VARYING, FrameArrays, FrameShape, frame_specs
from samg_fast.pipeline.gpu.memory import Arena, lay_out
from samg_fast.pipeline.schedule import SCHEDULE, DecodeRule, searched_box

if TYPE_CHECKING:
    from cuda.core import Stream
    from cuda.core.graph import Graph

__all__ = ["FrameProgram", "GpuNetworks"]

_log = logging.getLogger("samg_fast")


class GpuNetworks(NamedTuple):
    """A bundle's networks on a GPU."""

    encoder: DeviceNetwork
    features: DeviceNetwork | None  # None where the encoder's graph gives them
    decoder: DeviceNetwork


@dataclass(frozen=True)
class _Step:
    """Something that is launched, and the names of what it reads and writes."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    launch: Callable[[Stream], None]


class FrameProgram:
    """The launches of frames of one shape, on arrays in an arena that other programs use in turn.

    Once it has run it is captured as a CUDA graph, where the networks allow that, and is one launch from then on. If
    the GPU refuses the capture, that is logged as a warning, and every frame is launched step by step.

    Parameters
    ----------
    manifest : Manifest
        The bundle's.
    networks : GpuNetworks
        Opened on `cuda`.
    cuda : Cuda
        The GPU; its stream is where everything is launched, but for what runs beside it.
    shape : FrameShape

    Attributes
    ----------
    shape : FrameShape
    arrays : FrameArrays
        Once it is bound. ``"frames"`` and ``"targets"`` go in, `samg_fast.pipeline.gpu.arrays.RESULT` comes out.
    """

    arrays: FrameArrays

    def __init__(self, manifest: Manifest, networks: GpuNetworks, cuda: Cuda, shape: FrameShape) -> None:
        self.shape = shape
        self._manifest, self._networks, self._cuda = manifest, networks, cuda
        needed = {role: 0 if each is None else each.scratch(shape.batch) for role, each in networks._asdict().items()}
        self._scratch = {role: size for role, size in needed.items() if size}
        self._stages = self._make_stages()
        specs, lifetimes = frame_specs(manifest, shape, self._scratch), _lifetimes(self._stages)
        self._specs = {name: specs[name] for name in (*EXCLUSIVE, *lifetimes)}
        self._layout = lay_out(self._specs, lifetimes, EXCLUSIVE, VARYING)
        self._capturable = all(network.capturable for network in networks if network is not None)
        self._graph: Graph | None = None
        self._tables: Mapping[int, object] = {}  # that the graph reads

    @property
    def size(self) -> int:
        """Bytes its arrays need in an arena."""
        return self._layout.size

    def bind(self, arena: Arena) -> None:
        """Place its arrays in an arena that is large enough; to be called once, before the first launch."""
        self.arrays = FrameArrays(self._cuda, arena, self._manifest, self.shape, self._specs, self._layout)

    @property
    def captured(self) -> bool:
        """Whether it runs as one launch."""
        return self._graph is not None

    def launch(self) -> None:
        """Queue a frame, which turns what lies in ``"frames"`` and ``"targets"`` into the result.

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

    def _make_stages(self) -> list[tuple[_Step, ...]]:
        """List what is launched, in order; the steps of one stage run side by side."""
        shared = self._networks.features is None
        images = ("encoder image",) if shared else ("encoder image", "features image")
        encoder = self._encode("encoder", ("sam", "dino") if shared else ("sam",))
        stages: list[tuple[_Step, ...]] = [
            (_Step("preprocess", ("frames",), images, lambda _: self._preprocess(images)),),
            (encoder,) if shared else (encoder, self._encode("features", ("dino",))),
            (_Step("similarity_map", ("targets", "sam", "dino"), ("similarity",), lambda _: self._similarity()),),
            (_Step("topk_points", ("similarity",), ("points",), lambda _: self._points()),),
        ]
        for turn, rule in enumerate(SCHEDULE):
            if rule.searches_box:
                step = _Step("topk_points", ("similarity", "box"), ("points",), lambda _: self._search_box())
                stages.append((step,))
            stages += [(step,) for step in self._decode(turn, rule)]
        stages.append((_Step("apply_mask", ("frames", "mask"), ("masked",), lambda _: self._apply_mask()),))
        return stages

    def _encode(self, role: str, outputs: tuple[str, ...]) -> _Step:
        network = getattr(self._networks, role)
        specs = {"sam": self._manifest.encoder, "dino": self._manifest.features}
        scratch = self._scratch_of(role)

        def launch(stream: Stream) -> None:
            arrays = {specs[name].output: self.arrays[name] for name in outputs}
            arrays["image"] = self.arrays[f"{role} image"]
            network.enqueue(arrays, self.shape.batch, stream, self.arrays.get(f"{role} scratch"))

        return _Step(role, (f"{role} image",), (*outputs, *scratch), launch)

    def _decode(self, turn: int, rule: DecodeRule) -> list[_Step]:
        """List the steps of a decode: its prompt, the network, and its masks at the frame's size."""
        scratch = self._scratch_of("decoder")
        mask_input = ("settled",) if rule.refines else ()
        boxes = ("box",) if rule.refines else ()
        kept = () if rule is SCHEDULE[-1] else ("settled",)

        def prompt(_: Stream) -> None:
            letterbox = Letterbox(self.shape.height, self.shape.width, self._manifest.prompt_side)
            ops.prompt_assembly(
                self.arrays["points"],
                self.arrays[f"order {turn}"],
                self.arrays[f"labels {turn}"],
                self.arrays["box"] if rule.refines else None,
                scale=(letterbox.scale_x, letterbox.scale_y),
                slots=self._manifest.slots,
                out=(self.arrays["coords"], self.arrays["labels"]),
                device=self._cuda,
            )

        def decode(stream: Stream) -> None:
            arrays = {
                "embedding": self.arrays["sam"],
                "point_coords": self.arrays["coords"],
                "point_labels": self.arrays["labels"],
                "mask_input": self.arrays["mask input" if rule.refines else "no mask input"],
                "has_mask_input": self.arrays[f"has_mask_input {int(rule.refines)}"],
                "low_res_masks": self.arrays["low_res"],
                "iou": self.arrays["iou"],
            }
            if self._manifest.decoder.target:
                arrays["target"] = self.arrays["target"]
            self._networks.decoder.enqueue(arrays, self.shape.batch, stream, self.arrays.get("decoder scratch"))

        def resize(_: Stream) -> None:
            choice = {"weights": self.arrays["weights"]} if rule.weighted else {"iou": self.arrays["three ious"]}
            ops.resize_logits(
                self.arrays["three masks"],
                **choice,
                prompt_side=self._manifest.prompt_side,
                height=self.shape.height,
                width=self.shape.width,
                out=ResizedLogits(
                    settled=self.arrays["settled"] if kept else None,  # type: ignore[arg-type]
                    logits=None,  # type: ignore[arg-type]
                    **{name: self.arrays[name] for name in ("mask", "area", "box", "chosen")},
                ),
                device=self._cuda,
            )

        return [
            _Step("prompt_assembly", ("points", "targets", *boxes), ("coords", "labels"), prompt),
            _Step("decoder", ("sam", "targets", "coords", "labels", *mask_input), ("low_res", "iou", *scratch), decode),
            _Step("resize_logits", ("low_res", "iou", "targets"), (*kept, "mask", "box", "area", "chosen"), resize),
        ]

    def _scratch_of(self, role: str) -> tuple[str, ...]:
        return (f"{role} scratch",) if role in self._scratch else ()

    def _preprocess(self, images: Sequence[str]) -> None:
        specs = [self._manifest.encoder, self._manifest.features][: len(images)]
        out = [self.arrays[name] for name in images]
        ops.preprocess(self.arrays["frames"], specs, out=out, device=self._cuda)

    def _similarity(self) -> None:
        ops.similarity_map(
            *(self.arrays[name] for name in ("sam_features", "dino_features", "sam", "dino")),
            prompt_side=self._manifest.prompt_side,
            height=self.shape.height,
            width=self.shape.width,
            out=self.arrays["similarity"],
            device=self._cuda,
        )

    def _points(self) -> None:
        """Point at what is most similar in each map, and least similar to the target."""
        box = searched_box(self.shape.height, self.shape.width)
        ops.topk_points(self.arrays["every map"], 1, True, out=self.arrays["points max"], device=self._cuda)
        ops.topk_points(self.arrays["target map"], 1, False, box, out=self.arrays["points min"], device=self._cuda)

    def _search_box(self) -> None:
        """Point at what is least similar to the target inside the mask's box, not in its last row or column."""
        box, out = self.arrays["box"], self.arrays["points min_in_box"]
        ops.topk_points(self.arrays["target map"], 1, False, box, out=out, device=self._cuda)

    def _apply_mask(self) -> None:
        ops.apply_mask(self.arrays["frames"], self.arrays["mask"], out=self.arrays["masked"], device=self._cuda)


def _lifetimes(stages: Sequence[Sequence[_Step]]) -> dict[str, tuple[int, int]]:
    """Return the first and the last stage in which each array is needed, for those that may share their memory."""
    lifetimes: dict[str, tuple[int, int]] = {}
    for stage, steps in enumerate(stages):
        for step in steps:
            for name in {*step.reads, *step.writes} - {*EXCLUSIVE}:
                lifetimes[name] = (lifetimes.get(name, (stage, stage))[0], stage)
    return lifetimes
