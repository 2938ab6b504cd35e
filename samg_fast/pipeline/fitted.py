"""The frame of a bundle that is fitted to one target: one network, from the image to the mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from samg_fast import ops
from samg_fast.backends import Network
from samg_fast.bundle import Bundle, FittedManifest, Role
from samg_fast.checks import Floats, Frame
from samg_fast.pipeline.found import segmentations
from samg_fast.pipeline.opened import OpenNetworks
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.results import Segmentation

__all__ = ["FittedNetwork"]


class FittedNetwork(OpenNetworks):
    """The network of a fitted bundle.

    Parameters
    ----------
    bundle, networks, threads, max_batch
        See `OpenNetworks`.
    manifest : FittedManifest
        The bundle's.

    Raises
    ------
    BundleError
        The network is not what the manifest says.
    BackendError
        It fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        manifest: FittedManifest,
        networks: Mapping[Role, Network],
        threads: int | None,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(bundle, networks, threads, max_batch)
        self._spec, self._present = manifest.network, manifest.present
        self._check()

    def segment(self, frames: Frame) -> list[Segmentation]:
        """Segment a batch of frames, (B, H, W, 3) uint8."""
        clock = Stopwatch()
        logits, score = self._run(frames, clock)
        found = ops.resize_logits(
            logits,
            iou=score,
            prompt_side=self._spec.side,
            height=frames.shape[1],
            width=frames.shape[2],
            device=self.device,
        )
        clock.lap("resize")
        timings = clock.milliseconds(len(frames))
        return segmentations(frames, found, score[:, 0].tolist(), timings, self._present)

    def _run(self, frames: Frame, clock: Stopwatch) -> tuple[Floats, Floats]:
        """Return the logits (B, 1, S, S) and the scores (B, 1) of B frames."""
        count, side = len(frames), self._spec.side
        frames = self._filled(frames)
        image = self._kept("image", (len(frames), 3, side, side))
        ops.preprocess(frames, [self._spec], out=[image], device=self.device)
        clock.lap("preprocess")
        outputs = self.opened["network"](image=image)
        logits, score = (self._finite("network", outputs[name])[:count] for name in ("logits", "score"))
        clock.lap("encoder")
        return logits, score

    def _check(self) -> None:
        """Run the network once, and check that its outputs have the names and shapes that the contract states."""
        batch = self.bundle.manifest.batch or 1
        try:
            logits, score = self._run(np.zeros((batch, 8, 8, 3), np.uint8), Stopwatch())
        except MemoryError:
            raise self._error("maps of the sizes it names do not fit into memory") from None
        except KeyError as error:
            raise self._error(f"the network has no output named {error}") from None
        self._check_shape("network's logits", logits, (batch, 1, self._spec.side, self._spec.side))
        self._check_shape("network's score", score, (batch, 1))
