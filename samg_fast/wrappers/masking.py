"""What every wrapper does with frames: finds the target, says when it is lost, and shows the agent the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from samg_fast import ops
from samg_fast.checks import Frame, Mask, describe
from samg_fast.errors import InputError, InputTypeError
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target

__all__ = ["CHANNELS", "Lost", "Masking", "Mode", "Reference", "check_segmenter"]

Mode: TypeAlias = Literal["composite", "mask", "rgbm"]
"""What the agent sees: the masked picture, the mask alone, or the picture with the mask as a fourth channel."""

Lost: TypeAlias = Literal["empty", "hold", "frame"]
"""What stands for the mask of a lost target: none of the frame, the last mask of the episode, or all of the frame."""

Reference: TypeAlias = tuple[Any, ...]
"""The arguments of `Segmenter.identify`: (image, mask), or (image, mask, points), or (image, mask, points, parts)."""

CHANNELS: dict[Mode, int] = {"composite": 3, "mask": 1, "rgbm": 4}
"""How many channels a picture has in each mode."""


class Masking:
    """Masks the frames of one or more environments, which take their steps together.

    Parameters
    ----------
    segmenter : Segmenter
    target : Target, sequence of Target or None
        One for all environments, or one for each.
    reference : Reference or None
        In place of a target: what it is identified from when the first frame comes.
    count : int
        How many environments there are.
    mode : Mode
    threshold : float or None
        A target whose `Segmentation.score` is below is lost; None if it never is.
    lost : Lost
        Another than "empty" needs a threshold.

    Attributes
    ----------
    found : list of Segmentation
        What the segmenter said of the latest frames.

    Raises
    ------
    InputTypeError, InputError
        An argument is not one of the above, or there is another number of targets.
    BundleError
        A target was made with another bundle.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        target: Target | Sequence[Target] | None,
        reference: Reference | None,
        *,
        count: int,
        mode: Mode,
        threshold: float | None,
        lost: Lost,
    ) -> None:
        check_segmenter(segmenter)
        if (target is None) == (reference is None):
            raise InputError("target or reference must be given, one of them and not both")
        if reference is not None and not (isinstance(reference, tuple) and 2 <= len(reference) <= 4):
            raise InputTypeError(
                f"reference must be (image, mask), (image, mask, points) or (image, mask, points, parts), "
                f"not {describe(reference)}"
            )
        if threshold is not None:
            _check_threshold(threshold)
        _check_choice("mode", mode, get_args(Mode))
        _check_choice("lost", lost, get_args(Lost))
        if threshold is None and lost != "empty":
            raise InputError(f"lost is {lost!r}, but without a threshold no target is ever lost: give both")
        self.found: list[Segmentation] = []
        self._segmenter, self._reference, self._count = segmenter, reference, count
        self._mode, self._threshold, self._lost = mode, threshold, lost
        self._targets = [] if target is None else _one_each(segmenter, target, count)
        self._held: list[Mask | None] = [None] * count

    @property
    def targets(self) -> list[Target]:
        """Each environment's target; none before one is identified."""
        return self._targets

    def begin(self, which: Iterable[int] | None = None) -> None:
        """Forget the masks of an episode that ended, of all environments or of these."""
        for index in range(self._count) if which is None else which:
            self._held[index] = None

    def __call__(self, frames: Frame) -> Frame:
        """Mask a frame of every environment, all together.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array

        Returns
        -------
        (B, H, W, C) uint8 array
            C is `CHANNELS` of the mode; a mask is 0 and 255.
        """
        painted, self.found = self._mask(frames, range(self._count))
        return painted

    def alone(self, frame: Frame, which: int) -> Frame:
        """Mask one more frame, (H, W, 3), of one environment; `found` stays as it is.

        Returns
        -------
        (H, W, C) uint8 array
        """
        painted: Frame = self._mask(frame[None], [which])[0][0]
        return painted

    def _mask(self, frames: Frame, which: Sequence[int]) -> tuple[Frame, list[Segmentation]]:
        if self._reference is not None:
            self._targets = [self._segmenter.identify(*self._reference)] * self._count
            self._reference = None
        found = self._segmenter.segment_batch(frames, [self._targets[index] for index in which])
        masks = np.stack([self._settled(each, index) for each, index in zip(found, which, strict=True)])
        return _paint(frames, masks, self._mode), found

    def _settled(self, found: Segmentation, index: int) -> Mask:
        """Return an environment's mask, or what stands for it where the target is lost."""
        if self._threshold is None or found.score >= self._threshold:
            self._held[index] = found.mask
            return found.mask
        held = self._held[index]
        if self._lost == "hold" and held is not None:
            return held
        return np.full_like(found.mask, self._lost == "frame")


def _paint(frames: Frame, masks: Mask, mode: Mode) -> Frame:
    if mode == "composite":
        return ops.apply_mask(frames, masks)
    grey: Frame = masks[..., None].astype(np.uint8) * np.uint8(255)
    return grey if mode == "mask" else np.concatenate((frames, grey), axis=-1)


def check_segmenter(segmenter: object) -> None:
    """Refuse what cannot segment.

    Raises
    ------
    InputTypeError
        It is no `Segmenter`, and does not act like one.
    """
    if not hasattr(segmenter, "segment_batch"):
        raise InputTypeError(f"segmenter must be what samg_fast.load gives, not {describe(segmenter)}")


def _one_each(segmenter: Segmenter, target: Target | Sequence[Target], count: int) -> list[Target]:
    """Check the targets, and give every environment one."""
    if isinstance(target, str) or not isinstance(target, Sequence):
        segmenter.check_target(target)
        return [target] * count
    for index, each in enumerate(target):
        segmenter.check_target(each, f"target[{index}]")
    if len(target) != count:
        raise InputError(f"target must be one Target or {count} of them, one for each environment, not {len(target)}")
    return list(target)


def _check_threshold(threshold: object) -> None:
    if not isinstance(threshold, (int, float, np.floating)) or isinstance(threshold, bool):
        raise InputTypeError(f"threshold must be a number or None, not {describe(threshold)}")
    if not math.isfinite(threshold):
        raise InputError(f"threshold must be a finite number, not {threshold}")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}")
