"""The SAM-G frame as launches on a GPU: what `samg_fast.pipeline.host` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.backends import DeviceNetwork
from samg_fast.bundle import PromptedManifest, Role
from samg_fast.devices.cuda import Cuda
from samg_fast.ops.geometry import Letterbox
from samg_fast.ops.reference import ResizedLogits
from samg_fast.pipeline.gpu.arrays import BYTE, FLOAT, INT, FrameShape, result_specs
from samg_fast.pipeline.gpu.memory import Fixed, Spec, aligned
from samg_fast.pipeline.gpu.program import FrameProgram, Step
from samg_fast.pipeline.schedule import SCHEDULE, DecodeRule, point_rows, point_slots, searched_box
from samg_fast.target import Target

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["PromptedProgram"]


class PromptedProgram(FrameProgram):
    """The launches of SAM-G's frames.

    Parameters
    ----------
    manifest : PromptedManifest
        The bundle's.
    networks, cuda, shape
        See `FrameProgram`; without ``"features"`` where the encoder's graph gives them.
    """

    exclusive: ClassVar[tuple[str, ...]] = ("targets", *FrameProgram.exclusive)
    varying: ClassVar[tuple[str, ...]] = ("similarity", "points")
    ious: ClassVar[int] = 4

    def __init__(
        self, manifest: PromptedManifest, networks: Mapping[Role, DeviceNetwork], cuda: Cuda, shape: FrameShape
    ) -> None:
        self._manifest = manifest
        super().__init__(networks, cuda, shape)

    @property
    def fixed(self) -> Fixed:
        """The first decode's mask input, and whether a decode has one."""
        side = 4 * self._manifest.encoder.grid
        return {"no mask input": ((1, side, side), 0.0), "has_mask_input 0": ((), 0.0), "has_mask_input 1": ((), 1.0)}

    def write_targets(self, memory: NDArray[np.uint8], targets: Sequence[Target]) -> None:
        """Write targets as the launches read them; the features of parts that a target lacks are 0."""
        memory[:] = 0
        arrays = {
            name: memory[offset : offset + spec.bytes].view(spec.dtype).reshape(spec.shape)
            for name, (offset, spec) in _target_layout(self._manifest, self.shape).items()
        }
        for index, target in enumerate(targets):
            arrays["sam_features"][index, : 1 + target.parts] = target.all_sam
            arrays["dino_features"][index, : 1 + target.parts] = target.all_dino
            arrays["weights"][index] = target.mask_weights
            arrays["target"][index] = target.sam
        for turn, slots in enumerate(point_slots(tuple([target.parts for target in targets]))):
            arrays[f"order {turn}"][:], arrays[f"labels {turn}"][:] = slots

    def _make_stages(self) -> list[tuple[Step, ...]]:
        """List what is launched, in order; the steps of one stage run side by side."""
        manifest, shared = self._manifest, "features" not in self._networks
        images = {"encoder image": manifest.encoder} | ({} if shared else {"features image": manifest.features})
        encoder = self._encode("encoder", ("sam", "dino") if shared else ("sam",))
        stages: list[tuple[Step, ...]] = [
            (self._preprocess(images),),
            (encoder,) if shared else (encoder, self._encode("features", ("dino",))),
            (Step("similarity_map", ("targets", "sam", "dino"), ("similarity",), lambda _: self._similarity()),),
            (Step("topk_points", ("similarity",), ("points",), lambda _: self._points()),),
        ]
        for turn, rule in enumerate(SCHEDULE):
            if rule.searches_box:
                step = Step("topk_points", ("similarity", "box"), ("points",), lambda _: self._search_box())
                stages.append((step,))
            stages += [(step,) for step in self._decode(turn, rule)]
        stages.append((self._apply_mask(),))
        return stages

    def _encode(self, role: Role, outputs: tuple[str, ...]) -> Step:
        network = self._networks[role]
        specs = {"sam": self._manifest.encoder, "dino": self._manifest.features}
        scratch = self._scratch_of(role)

        def launch(stream: Stream) -> None:
            arrays = {specs[name].output: self.arrays[name] for name in outputs}
            arrays["image"] = self.arrays[f"{role} image"]
            network.enqueue(arrays, self.shape.batch, stream, self.arrays.get(f"{role} scratch"))

        return Step(role, (f"{role} image",), (*outputs, *scratch), launch)

    def _decode(self, turn: int, rule: DecodeRule) -> list[Step]:
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
            self._networks["decoder"].enqueue(arrays, self.shape.batch, stream, self.arrays.get("decoder scratch"))

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
            Step("prompt_assembly", ("points", "targets", *boxes), ("coords", "labels"), prompt),
            Step("decoder", ("sam", "targets", "coords", "labels", *mask_input), ("low_res", "iou", *scratch), decode),
            Step("resize_logits", ("low_res", "iou", "targets"), (*kept, "mask", "box", "area", "chosen"), resize),
        ]

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

    def _make_specs(self) -> dict[str, Spec]:
        manifest, shape = self._manifest, self.shape
        batch, height, width, maps = shape
        encoder, features = manifest.encoder, manifest.features
        side, slots = 4 * encoder.grid, manifest.slots
        # Room for as many parts as a target may have: what lies behind it is where it always is
        offset, last = list(_target_layout(manifest, shape._replace(maps=1 + manifest.max_parts)).values())[-1]
        return {
            **result_specs(shape, self.ious),
            "targets": Spec((offset + last.bytes,), BYTE),
            "encoder image": Spec((batch, 3, encoder.side, encoder.side), FLOAT),
            "features image": Spec((batch, 3, features.side, features.side), FLOAT),
            "sam": Spec((batch, encoder.channels, encoder.grid, encoder.grid), FLOAT),
            "dino": Spec((batch, features.channels, features.grid, features.grid), FLOAT),
            "similarity": Spec((batch, maps, height, width), FLOAT),
            "points": Spec((point_rows(batch, maps).min_in_box.stop, 2), INT),
            "coords": Spec((batch, slots, 2), FLOAT),
            "labels": Spec((batch, slots), FLOAT),
            "low_res": Spec((batch, 4, side, side), FLOAT),
            "settled": Spec((batch, side, side), FLOAT),
        }

    def _add_views(self) -> None:
        batch, height, width, maps = self.shape
        side = 4 * self._manifest.encoder.grid
        plane, size = side * side, height * width
        for name, (offset, spec) in _target_layout(self._manifest, self.shape).items():
            self.arrays.add_view(name, "targets", offset, spec.shape, dtype=spec.dtype)
        self.arrays.add_view("every map", "similarity", 0, (batch * maps, height, width))
        self.arrays.add_view("target map", "similarity", 0, (batch, height, width), (maps * size, width, 1))
        for name, rows in point_rows(batch, maps)._asdict().items():
            self.arrays.add_view(f"points {name}", "points", 8 * rows.start, (rows.stop - rows.start, 1, 2), dtype=INT)
        self.arrays.add_view("three masks", "low_res", 4 * plane, (batch, 3, side, side), (4 * plane, plane, side, 1))
        self.arrays.add_view("three ious", "iou", 4, (batch, 3), (4, 1))
        self.arrays.add_view("mask input", "settled", 0, (batch, 1, side, side))


def _target_layout(manifest: PromptedManifest, shape: FrameShape) -> dict[str, tuple[int, Spec]]:
    """Return the arrays that lie in ``"targets"``: where each begins, in bytes, and what it is.

    First comes what a network may use, so that its place does not depend on the number of parts.
    """
    batch, _, _, maps = shape
    specs = {
        "target": Spec((batch, manifest.encoder.channels), FLOAT),  # for a decoder that takes it
        "sam_features": Spec((batch, maps, manifest.encoder.channels), FLOAT),
        "dino_features": Spec((batch, maps, manifest.features.channels), FLOAT),
        "weights": Spec((batch, 3), FLOAT),
    }
    for turn, rule in enumerate(SCHEDULE):
        specs[f"order {turn}"] = specs[f"labels {turn}"] = Spec((batch, rule.points(maps)), INT)
    found, offset = {}, 0
    for name, spec in specs.items():
        found[name] = (offset, spec)
        offset += aligned(spec.bytes)
    return found
