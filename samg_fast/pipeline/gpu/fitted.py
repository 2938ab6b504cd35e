"""The frame of a fitted bundle as launches on a GPU: what `samg_fast.pipeline.fitted` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.backends import DeviceNetwork
from samg_fast.bundle import FittedManifest, Role
from samg_fast.devices.cuda import Cuda
from samg_fast.ops.reference import ResizedLogits
from samg_fast.pipeline.gpu.arrays import FLOAT, FrameShape, result_specs
from samg_fast.pipeline.gpu.memory import Fixed, Spec
from samg_fast.pipeline.gpu.program import FrameProgram, Step
from samg_fast.target import Target

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["FittedProgram"]


class FittedProgram(FrameProgram):
    """The launches of a fitted bundle's frames: preprocess, the network, resize, composite.

    Parameters
    ----------
    manifest : FittedManifest
        The bundle's.
    networks, cuda, shape
        See `FrameProgram`.
    """

    ious: ClassVar[int] = 1

    def __init__(
        self, manifest: FittedManifest, networks: Mapping[Role, DeviceNetwork], cuda: Cuda, shape: FrameShape
    ) -> None:
        self._spec = manifest.network
        super().__init__(networks, cuda, shape)

    @property
    def fixed(self) -> Fixed:
        """None."""
        return {}

    def write_targets(self, memory: NDArray[np.uint8], targets: Sequence[Target]) -> None:
        """Write nothing: the network has its own target."""

    def _make_stages(self) -> list[tuple[Step, ...]]:
        scratch = self._scratch_of("network")

        def run(stream: Stream) -> None:
            arrays = {"image": self.arrays["image"], "logits": self.arrays["logits"], "score": self.arrays["iou"]}
            self._networks["network"].enqueue(arrays, self.shape.batch, stream, self.arrays.get("network scratch"))

        def resize(_: Stream) -> None:
            ops.resize_logits(
                self.arrays["logits"],
                iou=self.arrays["iou"],
                prompt_side=self._spec.side,
                height=self.shape.height,
                width=self.shape.width,
                out=ResizedLogits(
                    settled=None,  # type: ignore[arg-type]
                    logits=None,  # type: ignore[arg-type]
                    **{name: self.arrays[name] for name in ("mask", "area", "box", "chosen")},
                ),
                device=self._cuda,
            )

        return [
            (self._preprocess({"image": self._spec}),),
            (Step("network", ("image",), ("logits", "iou", *scratch), run),),
            (Step("resize_logits", ("logits", "iou"), ("mask", "box", "area", "chosen"), resize),),
            (self._apply_mask(),),
        ]

    def _make_specs(self) -> dict[str, Spec]:
        batch, side = self.shape.batch, self._spec.side
        return {
            **result_specs(self.shape, self.ious),
            "image": Spec((batch, 3, side, side), FLOAT),
            "logits": Spec((batch, 1, side, side), FLOAT),
        }

    def _add_views(self) -> None:
        """Add none."""
