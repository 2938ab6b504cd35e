"""What takes turns: the eager reference and segmenters, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from samg_fast.pipeline.networks import Maps
from samg_fast.pipeline.schedule import PointSlots
from samg_fast.pipeline.stopwatch import Stopwatch

if TYPE_CHECKING:
    from benchmarks.eager.frame import EagerSamg, EagerTarget
    from benchmarks.eager.predictor import EagerPrompt
    from samg_fast import Segmenter, Target
    from samg_fast.checks import Floats, Frame, Mask

__all__ = ["Contender", "EagerContender", "Seen", "SegmenterContender", "painted"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the networks made of one frame under given prompts.

    Parameters
    ----------
    embedding : (256, 64, 64) float32 array
    tokens : (C, 32, 32) float32 array
    logits : list of (3, 256, 256) float32 arrays
        Of each prompt, decoded from `embedding`.
    given : list of (3, 256, 256) float32 arrays
        The same, decoded from an embedding that was given: what the decoder alone does differently.
    """

    embedding: Floats
    tokens: Floats
    logits: list[Floats]
    given: list[Floats]


class Contender(Protocol):
    """One way to run the SAM-G frame."""

    def identify(self, image: Frame, mask: Mask) -> None:
        """Learn a task from its reference image (H, W, 3) uint8 and mask (H, W) bool; tasks are numbered."""
        ...

    def frame(self, task: int, frame: Frame) -> dict[str, float]:
        """Run a whole frame, to its masked observation; return milliseconds by stage."""
        ...

    def look(self, frame: Frame, prompts: Sequence[EagerPrompt], embedding: Floats) -> Seen:
        """Encode a frame and decode the prompts given, not those the frame would lead to.

        They are decoded from the frame's own embedding and from the one given, (1, 256, 64, 64) float32.
        """
        ...


class EagerContender:
    """The eager reference, compiled or not.

    Parameters
    ----------
    samg : EagerSamg
    """

    def __init__(self, samg: EagerSamg) -> None:
        self.samg = samg
        self.targets: list[EagerTarget] = []

    def identify(self, image: Frame, mask: Mask) -> None:
        """See `Contender`."""
        self.targets.append(self.samg.identify(image, painted(mask)))

    def frame(self, task: int, frame: Frame) -> dict[str, float]:
        """See `Contender`."""
        return self.samg.segment(frame, self.targets[task]).timings

    def look(self, frame: Frame, prompts: Sequence[EagerPrompt], embedding: Floats) -> Seen:
        """See `Contender`."""
        predictor = self.samg.predictor
        _, tokens = self.samg.features(frame)
        predictor.set_image(frame)
        own = predictor.features
        logits = [predictor.predict(prompt).low_res for prompt in prompts]
        predictor.features = own.new_tensor(embedding)
        given = [predictor.predict(prompt).low_res for prompt in prompts]
        return Seen(own[0].numpy(force=True), tokens[0].numpy(force=True), logits, given)


class SegmenterContender:
    """A bundle on a backend.

    Parameters
    ----------
    segmenter : Segmenter
        It stays open.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.targets: list[Target] = []

    def identify(self, image: Frame, mask: Mask) -> None:
        """See `Contender`."""
        self.targets.append(self.segmenter.identify_masked_picture(image, painted(mask)))

    def frame(self, task: int, frame: Frame) -> dict[str, float]:
        """See `Contender`."""
        out = self.segmenter.segment(frame, self.targets[task])
        _ = out.masked  # made when it is asked for, and the agent asks
        return out.timings

    def look(self, frame: Frame, prompts: Sequence[EagerPrompt], embedding: Floats) -> Seen:
        """See `Contender`."""
        networks = self.segmenter._prompted
        maps = networks.encode(frame[None], Stopwatch())
        sam, dino = maps.sam.copy(), maps.dino.copy()

        def decoded(maps: Maps) -> list[Floats]:
            return [
                networks.decode(maps, *_slotted(prompt), prompt.mask_input)[0][0].copy()  # the next one overwrites it
                for prompt in prompts
            ]

        return Seen(sam[0], dino[0], decoded(maps), decoded(maps._replace(sam=embedding)))


def painted(mask: Mask) -> Frame:
    """Draw a mask (H, W) bool as a masked picture (H, W, 3) uint8 that is white on the target.

    Read the official way, where red decides, it means the same for a target of any colour.
    """
    return np.repeat(mask[..., None], 3, axis=-1).astype(np.uint8) * np.uint8(255)


def _slotted(prompt: EagerPrompt) -> tuple[NDArray[np.int32], PointSlots, NDArray[np.int32] | None]:
    """Say the same prompt in the package's words: points, their slots and the box."""
    order = np.arange(len(prompt.points), dtype=np.int32)[None]
    box = None if prompt.box is None else prompt.box[None].astype(np.int32)
    return prompt.points.astype(np.int32), PointSlots(order, prompt.labels[None].astype(np.int32)), box
