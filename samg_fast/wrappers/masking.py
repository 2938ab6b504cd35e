"""What all masking wrappers share: find the target in a frame, decide whether it is lost, build what the agent sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from samg_fast.background import Background, Backgrounds
from samg_fast.checks import Frame, Mask, describe, is_whole
from samg_fast.errors import InputError, InputTypeError
from samg_fast.objects import Objects, check_objects, ids_of
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target

__all__ = ["Found", "Lost", "Masking", "Mode", "References", "SingleTarget", "Targets", "check_segmenter"]

Mode: TypeAlias = Literal["composite", "mask", "rgbm", "ids"]
"""What the agent sees: the masked image; the mask alone, one for each object; the image with the masks as further
channels; or the number of the object at each pixel."""

Lost: TypeAlias = Literal["empty", "hold", "frame"]
"""Mask to use for a lost target: an empty one, the last one of the episode, or the whole frame."""

Reference: TypeAlias = tuple[Any, ...]
"""The arguments of `Segmenter.identify`: (image, mask), or (image, mask, points), or (image, mask, points, parts)."""

Targets: TypeAlias = Target | Sequence[Target] | Mapping[str, Target]
"""One for all environments, or one for each; or several named objects, in every environment."""

References: TypeAlias = Reference | Mapping[str, Reference]
"""Of one target, or of several named objects."""

Found: TypeAlias = Segmentation | Objects
"""What is found in a frame: `Objects` where several are named."""


class Masking:
    """Masks the frames of one or more environments that step together.

    Parameters
    ----------
    segmenter : Segmenter
    target : Targets or None
        A fitted bundle needs neither a target nor a reference.
    reference : References or None
        Instead of a target: what to identify it from when the first frame arrives.
    count : int
        Number of environments.
    mode : Mode
    threshold : float or None
        A target whose `Segmentation.score` is below this counts as lost. None stands for the bundle's own threshold,
        `Manifest.present`; without that, no target is ever lost.
    lost : Lost
        Any value but "empty" needs a threshold, here or in the bundle.
    background : Background
        What stands where the mask is not set; of the masked image only.

    Attributes
    ----------
    segmentations : list of Segmentation or of Objects
        Results for the latest frames; empty before the first.

    Raises
    ------
    InputTypeError, InputError
        An argument is invalid, or the number of targets does not match.
    BundleError
        A target was made with another bundle.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        target: Targets | None,
        reference: References | None,
        *,
        count: int,
        mode: Mode,
        threshold: float | None,
        lost: Lost,
        background: Background = None,
    ) -> None:
        check_segmenter(segmenter)
        fitted = not getattr(segmenter, "needs_target", True)
        if fitted and reference is not None:
            raise InputError(
                f"reference must not be given: bundle {segmenter.bundle.name} is fitted to its target, and needs none"
            )
        if not fitted and (target is None) == (reference is None):
            raise InputError("target or reference must be given, one of them and not both")
        for given in reference.values() if isinstance(reference, Mapping) else [reference]:
            _check_reference(given)
        if threshold is not None:
            _check_threshold(threshold)
        _check_option("mode", mode, get_args(Mode))
        _check_option("lost", lost, get_args(Lost))
        if threshold is None:
            threshold = segmenter.bundle.manifest.present
        if threshold is None and lost != "empty":
            raise InputError(
                f"lost is {lost!r}, but without a threshold no target is ever lost, and bundle {segmenter.bundle.name} "
                "states none: give both"
            )
        if background is not None and mode != "composite":
            raise InputError(f"background is what the masked image has behind the target: mode {mode!r} has none")
        self._backgrounds = Backgrounds(background, count)
        self.segmentations: list[Found] = []
        self._segmenter, self._reference, self._count = segmenter, reference, count
        self._mode, self._threshold, self._lost = mode, threshold, lost
        self._objects: dict[str, Target] | None = None
        self._targets: list[Target | None] = [None] * count
        if isinstance(target, Mapping):
            self._objects = check_objects(target)
            for name, each in self._objects.items():
                segmenter.check_target(each, f"target[{name!r}]")
        elif target is not None:
            self._targets[:] = _one_per_environment(segmenter, target, count)
        named = target if isinstance(target, Mapping) else reference if isinstance(reference, Mapping) else None
        if named is not None and not named:
            raise InputError("reference must name one object at least")
        self.channels: int = {"composite": 3, "ids": 1}.get(mode) or (
            (1 if named is None else len(named)) + (3 if mode == "rgbm" else 0)
        )
        self._last_masks: dict[tuple[int, int], Mask] = {}

    @property
    def targets(self) -> list[Target | dict[str, Target]]:
        """Each environment's target, or named targets; empty until they are identified, or where none are needed."""
        if self._objects is not None:
            return [dict(self._objects)] * self._count
        return [target for target in self._targets if target is not None]

    def seed(self, seed: object) -> None:
        """Draw backgrounds by the seed of a reset, if it is a number or a list that begins with one."""
        first = seed[0] if isinstance(seed, Sequence) and seed else seed
        if is_whole(first):
            self._backgrounds.seed(first)

    def start_episodes(self, which: Iterable[int] | None = None) -> None:
        """Forget the masks and backgrounds of the previous episode, of the environments `which` or of all."""
        started = set(range(self._count) if which is None else which)
        for key in [key for key in self._last_masks if key[0] in started]:
            del self._last_masks[key]
        self._backgrounds.start_episodes(started)

    def __call__(self, frames: Frame) -> Frame:
        """Mask one frame of every environment, as one batch.

        Parameters
        ----------
        frames : (B, H, W, 3) uint8 array

        Returns
        -------
        (B, H, W, C) uint8 array
            C is `channels`; a mask is 0 and 255, and an id 0 to the number of objects.
        """
        masked, self.segmentations = self._mask(frames, range(self._count))
        return masked

    def mask_one(self, frame: Frame, which: int) -> Frame:
        """Mask an additional frame, (H, W, 3), of environment `which`; `segmentations` does not change.

        Returns
        -------
        (H, W, C) uint8 array
        """
        masked: Frame = self._mask(frame[None], [which])[0][0]
        return masked

    def _mask(self, frames: Frame, which: Sequence[int]) -> tuple[Frame, list[Found]]:
        self._identify()
        found: list[Found]
        if self._objects is not None:
            found = [*self._segmenter.segment_batch(frames, self._objects)]
        else:
            found = [*self._segmenter.segment_batch(frames, [self._targets[index] for index in which])]
        shown = [self._to_show(each, index) for each, index in zip(found, which, strict=True)]
        masks = np.stack(shown)  # (B, N, H, W)
        if self._mode == "composite":
            return self._backgrounds.compose(frames, np.asarray(masks.any(axis=1)), which), found
        if self._mode == "ids":
            return np.stack([_ids(each, of) for each, of in zip(found, masks, strict=True)])[..., None], found
        grey: Frame = masks.transpose(0, 2, 3, 1).astype(np.uint8) * np.uint8(255)
        return grey if self._mode == "mask" else np.concatenate((frames, grey), axis=-1), found

    def _identify(self) -> None:
        """Learn the targets from their references, once."""
        reference = self._reference
        if isinstance(reference, Mapping):
            self._objects = check_objects({name: self._segmenter.identify(*each) for name, each in reference.items()})
        elif reference is not None:
            self._targets[:] = [self._segmenter.identify(*reference)] * self._count
        self._reference = None

    def _to_show(self, found: Found, index: int) -> Mask:
        """Return the masks that were found in an environment, (N, H, W), with substitutes of lost targets."""
        every = _each(found)
        return np.stack([self._mask_to_show(each, (index, number)) for number, each in enumerate(every)])

    def _mask_to_show(self, segmentation: Segmentation, key: tuple[int, int]) -> Mask:
        if self._threshold is None or segmentation.score >= self._threshold:
            self._last_masks[key] = segmentation.mask
            return segmentation.mask
        if self._lost == "hold" and key in self._last_masks:
            return self._last_masks[key]
        return np.full_like(segmentation.mask, self._lost == "frame")


class SingleTarget:
    """The public properties of a wrapper that masks one environment with a `Masking`."""

    _masking: Masking

    @property
    def segmentation(self) -> Found | None:
        """Result for the latest frame, `Objects` where several are named; None before the first frame."""
        return self._masking.segmentations[0] if self._masking.segmentations else None

    @property
    def target(self) -> Target | dict[str, Target] | None:
        """What is cut out, by name where several are; None until it is identified."""
        return self._masking.targets[0] if self._masking.targets else None


def _each(found: Found) -> list[Segmentation]:
    return [*found.found.values()] if isinstance(found, Objects) else [found]


def _ids(found: Found, masks: Mask) -> Frame:
    """Return which of the objects each pixel shows, by the masks to show (N, H, W)."""
    return ids_of([each.score for each in _each(found)], masks)


def _check_reference(reference: object) -> None:
    if reference is not None and not (isinstance(reference, tuple) and 2 <= len(reference) <= 4):
        raise InputTypeError(
            f"reference must be (image, mask), (image, mask, points) or (image, mask, points, parts), "
            f"not {describe(reference)}"
        )


def check_segmenter(segmenter: object) -> None:
    """Raise an error unless `segmenter` can segment.

    Raises
    ------
    InputTypeError
        It is not a `Segmenter`, and does not act like one.
    """
    if not hasattr(segmenter, "segment_batch"):
        raise InputTypeError(f"segmenter must be what samg_fast.load gives, not {describe(segmenter)}")


def _one_per_environment(segmenter: Segmenter, target: Target | Sequence[Target], count: int) -> list[Target]:
    """Check the targets, and return one for each environment."""
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


def _check_option(name: str, value: object, options: Sequence[str]) -> None:
    if value not in options:
        raise InputError(f"{name} must be {', '.join(options[:-1])} or {options[-1]}, not {value!r}")
