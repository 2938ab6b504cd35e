"""How good a fitted network is on frames that it was not fitted to, beside its teacher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from samg_fast.checks import Frame, Mask
from samg_fast.metrics import iou

from .compose import Composer, Odds
from .labels import Labels

if TYPE_CHECKING:
    from samg_fast.envs.backgrounds import VideoClip
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["Held", "Measured", "held_out_frames", "measure"]

_COMPOSED = Odds(background=1.0, absent=0.0, moved=0.0, recoloured=0.0, lit=0.0)


@dataclass(frozen=True)
class Held:
    """Held-out frames, as they are and then on other backgrounds; all show the target.

    Attributes
    ----------
    frames : (N, H, W, 3) uint8
    masks : (N, H, W) bool
    clean : int
        How many are as they are.
    """

    frames: Frame
    masks: Mask
    clean: int


@dataclass(frozen=True)
class Measured:
    """What a segmenter found in held-out frames.

    Attributes
    ----------
    masks : (N, H, W) bool
    ious, scores : (N,) float
    ms : float
        Median milliseconds of a frame.
    """

    masks: Mask
    ious: np.ndarray[tuple[int], np.dtype[np.float64]]
    scores: np.ndarray[tuple[int], np.dtype[np.float64]]
    ms: float

    @property
    def iou(self) -> float:
        """Mean over all frames."""
        return float(self.ious.mean())


def held_out_frames(labels: Labels, clips: Sequence[VideoClip], *, count: int = 48, seed: int = 0) -> Held:
    """Take some labelled frames as they are, and as many on backgrounds that were not trained on.

    Parameters
    ----------
    labels : Labels
        That were not trained on; at least one shows the target.
    clips : sequence of VideoClip
        Likewise; besides them, procedural ones.
    """
    shown = labels[np.flatnonzero(labels.present)]
    chosen = np.unique(np.linspace(0, len(shown) - 1, min(count, len(shown))).astype(int))
    clean = shown[chosen]
    rng = np.random.default_rng([seed, 2])
    composer = Composer(clean, clips, max(clean.frames.shape[1:3]), rng, _COMPOSED)
    drawn = [composer.draw() for _ in range(len(clean))]
    return Held(
        np.concatenate([clean.frames, np.stack([image for image, _ in drawn])]),
        np.concatenate([clean.masks, np.stack([mask for _, mask in drawn])]),
        len(clean),
    )


def measure(segmenter: Segmenter, target: Target | None, held: Held) -> Measured:
    """Segment held-out frames one by one."""
    segmenter.segment(held.frames[0], target)
    masks, scores, times = [], [], []
    for frame in held.frames:
        began = time.perf_counter()
        found = segmenter.segment(frame, target)
        times.append(time.perf_counter() - began)
        masks.append(found.mask)
        scores.append(found.score)
    ious = [iou(mask, truth) for mask, truth in zip(masks, held.masks, strict=True)]
    return Measured(np.stack(masks), np.array(ious), np.array(scores), 1e3 * float(np.median(times)))
