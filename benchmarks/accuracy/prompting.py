"""Whether a segmenter cuts out what it was shown, and not whatever is there: pairs, swapped targets, and parts.

All three use the frames that accuracy is measured on, which must be of one size here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from samg_fast.metrics import area_under_curve, iou

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from benchmarks.accuracy.frames import TaskFrames
    from samg_fast import Segmenter, Target
    from samg_fast.checks import Frame, Mask

_Pixel = TypeVar("_Pixel", bound=np.generic)

__all__ = [
    "Pairs",
    "Parts",
    "Prompting",
    "Swap",
    "domain",
    "measure_pairs",
    "measure_parts",
    "measure_swap",
    "paste",
]


@dataclass(frozen=True)
class Pairs:
    """Two tasks' targets in one frame, each asked for in turn.

    Attributes
    ----------
    nearer : float
        Share of masks whose IoU with the wanted target is above that with the other one.
    iou : float
        Mean IoU with the wanted target.
    masks : int
    """

    nearer: float
    iou: float
    masks: int


@dataclass(frozen=True)
class Swap:
    """Frames under their own task's target, and under those of other tasks.

    Attributes
    ----------
    auc : float
        Area under the curve of the score, own target against others': 1 where every own score is above every other.
    own, other : float
        Mean IoU of the mask with the task's target, under its own and under another's target.
    kept : float
        Share of masks under the own target whose score is at least the bundle's threshold.
    refused : float
        Share of masks under another target whose score is below it.
    """

    auc: float
    own: float
    other: float
    kept: float
    refused: float


@dataclass(frozen=True)
class Parts:
    """The upper half of each target as the target, on the reference image itself.

    Attributes
    ----------
    iou : float
        Mean over the tasks.
    each : dict of str to float
        IoU by task.
    """

    iou: float
    each: dict[str, float]


@dataclass(frozen=True)
class Prompting:
    """All three; empty, or None, where they were not asked for. Of pairs and swap one for each setting."""

    pairs: Mapping[str, Pairs]
    swaps: Mapping[str, Swap]
    parts: Parts | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def markdown(self) -> str:
        """Lay the figures out as a Markdown table."""
        rows: list[tuple[str, float]] = []
        for setting, pair in self.pairs.items():
            rows += [
                (f"{setting}, two targets in the frame: the mask is nearer to the wanted one", pair.nearer),
                ("… IoU with the wanted one", pair.iou),
            ]
        for setting, swap in self.swaps.items():
            rows += [
                (f"{setting}, score under the own target against another's: area under the curve", swap.auc),
                ("… IoU with the task's target, under its own target", swap.own),
                ("… IoU with the task's target, under another's", swap.other),
                ("… taken for present under the own target", swap.kept),
                ("… taken for absent under another's", swap.refused),
            ]
        if self.parts is not None:
            rows.append(("upper half as the target, on the reference itself: IoU", self.parts.iou))
        lines = [f"| {what} | {figure:.3f} |" for what, figure in rows]
        return "\n".join(["| measure | figure |", "| --- | ---: |", *lines])


def paste(frame: Frame, other: Frame, mask: Mask, rng: np.random.Generator, *, clear_of: Mask) -> tuple[Frame, Mask]:
    """Paste what ``mask`` covers of another frame, moved sideways so that it hides little of ``clear_of``.

    Returns
    -------
    frame : (H, W, 3) uint8 array
    pasted : (H, W) bool array
        Where it came to lie; never on ``clear_of``.
    """
    width = mask.shape[1]
    shifts = rng.permutation(np.arange(-width // 2, width // 2, 4))
    # Most of the thing in the image and clear of the other: what is cut off counts as what would be hidden
    shift = int(max(shifts, key=lambda shift: int((_moved(mask, shift) & ~clear_of).sum())))
    pasted = _moved(mask, shift) & ~clear_of
    return np.where(pasted[..., None], _moved(other, shift), frame), pasted


def _moved(picture: NDArray[_Pixel], shift: int) -> NDArray[_Pixel]:
    """Shift an image to the right, or to the left if negative; what enters is 0."""
    moved = np.zeros_like(picture)
    width = picture.shape[1]
    moved[:, max(shift, 0) : width + min(shift, 0)] = picture[:, max(-shift, 0) : width - max(shift, 0)]
    return moved


def measure_pairs(segmenter: Segmenter, tasks: Mapping[str, TaskFrames], setting: str, seed: int = 0) -> Pairs:
    """Paste the target of every other domain into each task's frames, and ask for one and for the other."""
    rng, targets = np.random.default_rng(seed), _targets(segmenter, tasks)
    nearer: list[bool] = []
    ious: list[float] = []
    for name, shown in tasks.items():
        frames, truths = shown.settings[setting]
        for index, (frame, truth) in enumerate(zip(frames, truths, strict=True)):
            others = [other for other in tasks if domain(other) != domain(name)]
            other = others[index % len(others)]
            guests, guest_truths = tasks[other].settings[setting]
            which = int(rng.integers(len(guests)))
            both, pasted = paste(frame, guests[which], guest_truths[which], rng, clear_of=truth)
            if pasted.sum() < 16 or truth.sum() < 16:
                continue
            for wanted, unwanted, target in ((truth, pasted, targets[name]), (pasted, truth, targets[other])):
                mask = segmenter.segment(both, target).mask
                ious.append(iou(mask, wanted))
                nearer.append(ious[-1] > iou(mask, unwanted))
    return Pairs(float(np.mean(nearer)), float(np.mean(ious)), len(ious))


def measure_swap(segmenter: Segmenter, tasks: Mapping[str, TaskFrames], setting: str) -> Swap:
    """Segment every task's frames under its own target and under those of the other domains, in turn."""
    targets = _targets(segmenter, tasks)
    own, other = _Found(), _Found()
    for name, shown in tasks.items():
        frames, truths = shown.settings[setting]
        others = [target for task, target in targets.items() if domain(task) != domain(name)]
        for index, (frame, truth) in enumerate(zip(frames, truths, strict=True)):
            own.add(segmenter, frame, targets[name], truth)
            other.add(segmenter, frame, others[index % len(others)], truth)
    return Swap(
        area_under_curve(own.scores, other.scores),
        float(np.mean(own.ious)),
        float(np.mean(other.ious)),
        float(np.mean(own.present)),
        1 - float(np.mean(other.present)),
    )


def measure_parts(segmenter: Segmenter, tasks: Mapping[str, TaskFrames]) -> Parts:
    """Identify the upper half of every task's target on its reference image, and segment that image."""
    each = {}
    for name, shown in tasks.items():
        rows = np.flatnonzero(shown.reference_mask.any(axis=1))
        half = shown.reference_mask.copy()
        half[(rows[0] + rows[-1] + 1) // 2 :] = False
        target = segmenter.identify(shown.reference, half)
        each[name] = iou(segmenter.segment(shown.reference, target).mask, half)
    return Parts(float(np.mean(list(each.values()))), each)


class _Found:
    """Scores and IoU of masks, as they come."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.ious: list[float] = []
        self.present: list[bool] = []

    def add(self, segmenter: Segmenter, frame: Frame, target: Target, truth: Mask) -> None:
        found = segmenter.segment(frame, target)
        self.scores.append(found.score)
        self.ious.append(iou(found.mask, truth))
        self.present.append(found.present)


def _targets(segmenter: Segmenter, tasks: Mapping[str, TaskFrames]) -> dict[str, Target]:
    return {name: segmenter.identify(shown.reference, shown.reference_mask) for name, shown in tasks.items()}


def domain(task: str) -> str:
    """Return the domain of a task."""
    return task.partition("_")[0]
