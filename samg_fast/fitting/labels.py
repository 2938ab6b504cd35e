"""Labels for fitting: masks of the frames that a teacher is sure of, better than one look of it gives.

A mask is what most of several looks agree on: at the frame as it is, mirrored, shifted and recoloured. Frames on which
they do not agree are dropped, and so are those in which the teacher does not find its target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Frame, Mask
from samg_fast.distill.backgrounds import jitter
from samg_fast.metrics import iou

if TYPE_CHECKING:
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["AGREEMENT", "Labels", "concatenate", "label"]

AGREEMENT = 0.6
"""The mean IoU of a teacher's looks at a frame with what most of them say, below which the frame is dropped."""

_LEAST_SURE = 0.1  # of the frames that are left, which are dropped too
_SHIFT = 5  # pixels
_AT_ONCE = 16  # frames

_Pixel = TypeVar("_Pixel", bound=np.generic)


@dataclass(frozen=True)
class Labels:
    """Frames of one size with their masks.

    Attributes
    ----------
    frames : (N, H, W, 3) uint8
    masks : (N, H, W) bool
        All False where the target is absent.
    """

    frames: Frame
    masks: Mask

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, which: Sequence[int] | slice | NDArray[np.intp]) -> Labels:
        return Labels(self.frames[which], self.masks[which])

    @property
    def present(self) -> Mask:
        """Which frames show the target, (N,) bool."""
        shown: Mask = np.any(self.masks, axis=(1, 2))
        return shown


def concatenate(parts: Iterable[Labels]) -> Labels:
    """Return several labels as one."""
    parts = list(parts)
    return Labels(np.concatenate([each.frames for each in parts]), np.concatenate([each.masks for each in parts]))


def label(
    segmenter: Segmenter,
    target: Target | None,
    frames: Frame,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Labels:
    """Label frames with a teacher, and drop those on which it is not sure.

    Parameters
    ----------
    segmenter : Segmenter
        The teacher.
    target : Target or None
        What it is to find; None where it is fitted to its target.
    frames : (N, H, W, 3) uint8 array
    seed : int
        Of the colours.
    advance : callable
        Called with the number of frames that were labelled.

    Returns
    -------
    Labels
        Of the frames that are left. A frame in which no look finds the target, by the bundle's own threshold, is one
        without the target.
    """
    rng = np.random.default_rng([seed, 1])
    knows_absence = segmenter.bundle.manifest.present is not None
    masks, agreements, absent = [], [], []
    for first in range(0, len(frames), _AT_ONCE):
        part = frames[first : first + _AT_ONCE]
        looks, presents = [], []
        for seen, back in _looks(part, rng):
            found = segmenter.segment_batch(seen, target)
            looks.append(back(np.stack([each.mask for each in found])))
            presents.append([each.present for each in found])
        most, present = np.sum(looks, axis=0) * 2 > len(looks), np.array(presents)
        agreement = np.array([np.mean([iou(look[index], most[index]) for look in looks]) for index in range(len(part))])
        masks.append(most)
        agreements.append(np.where(present[0] & most.any((1, 2)), agreement, 0.0))
        absent.append(~present.any(0) & knows_absence)
        advance(len(part))
    every, sure, gone = np.concatenate(masks), np.concatenate(agreements), np.concatenate(absent)
    kept = sure >= AGREEMENT
    if kept.sum() > 1:
        kept &= sure >= np.quantile(sure[kept], _LEAST_SURE)
    every[gone] = False
    chosen = np.flatnonzero(kept | gone)
    return Labels(frames[chosen], every[chosen])


def _looks(frames: Frame, rng: np.random.Generator) -> Iterable[tuple[Frame, Callable[[Mask], Mask]]]:
    """Yield the frames as they are, mirrored, shifted and recoloured, with what takes masks back."""
    yield frames, lambda masks: masks
    yield np.ascontiguousarray(frames[:, :, ::-1]), lambda masks: masks[:, :, ::-1]
    down, right = (int(each) for each in rng.choice([-_SHIFT, _SHIFT], 2))
    yield _shifted(frames, down, right), lambda masks: _shifted(masks, -down, -right, fill=False)
    yield np.stack([jitter(frame, 0.3, rng) for frame in frames]), lambda masks: masks


def _shifted(images: NDArray[_Pixel], down: int, right: int, *, fill: bool = True) -> NDArray[_Pixel]:
    """Shift (N, H, W, …) images; what enters repeats the edge, or is False."""
    widths = [(0, 0), (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))]
    padded: NDArray[_Pixel] = np.pad(images, widths + [(0, 0)] * (images.ndim - 3), mode="edge" if fill else "constant")
    height, width = images.shape[1:3]
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, top : top + height, left : left + width]
