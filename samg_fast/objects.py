"""Several objects in one frame: what `Segmenter.segment` returns for a mapping of names to targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from samg_fast import ops
from samg_fast.checks import Frame, Mask, describe
from samg_fast.errors import InputError, InputTypeError
from samg_fast.results import Segmentation
from samg_fast.target import Target

__all__ = ["Objects", "check_objects", "gathered", "ids_of"]

_MOST = 255
"""Objects that an id of 8 bits can tell apart."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Objects:
    """The objects found in a frame.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        A copy of the frame.
    found : dict of str to Segmentation
        Each object's, in the order in which the targets were given.
    """

    frame: Frame
    found: dict[str, Segmentation]

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds of all objects together; see `Segmentation.timings`, of which each object has its share."""
        every = [each.timings for each in self.found.values()]
        return {stage: sum(each[stage] for each in every) for stage in every[0]}

    def __getitem__(self, name: str) -> Segmentation:
        """Return one object's."""
        return self.found[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The objects' names, in order."""
        return tuple(self.found)

    @cached_property
    def ids(self) -> Frame:
        """Which object each pixel belongs to, (H, W) uint8: 0 for none, k for the k-th name.

        A pixel that several objects have goes to the one with the best score. Objects that are not present have none.
        """
        every = self.found.values()
        shown = [each.mask if each.present else np.zeros_like(each.mask) for each in every]
        return ids_of([each.score for each in every], np.stack(shown))

    @property
    def mask(self) -> Mask:
        """Where some object is that is present, (H, W) bool."""
        return np.asarray(self.ids > 0)

    @property
    def masked(self) -> Frame:
        """The frame where some object is that is present, black elsewhere, (H, W, 3) uint8."""
        return ops.apply_mask(self.frame, self.mask)


def ids_of(scores: Sequence[float], masks: Mask) -> Frame:
    """Return which of the masks (N, H, W) each pixel has, (H, W) uint8: 0 for none, else k for the k-th.

    A pixel of several goes to the one with the best score.
    """
    ids = np.zeros(masks.shape[1:], np.uint8)
    for number in np.argsort(scores, kind="stable").tolist():  # the best one comes last, over all others
        ids[masks[number]] = number + 1
    return ids


def gathered(names: Iterable[str], found: Sequence[Segmentation]) -> list[Objects]:
    """Return the objects of each frame, of their segmentations frame by frame."""
    names = list(names)
    rows = [found[first : first + len(names)] for first in range(0, len(found), len(names))]
    return [Objects(frame=row[0].frame, found=dict(zip(names, row, strict=True))) for row in rows]


def check_objects(targets: Any) -> dict[str, Target]:
    """Return a mapping of names to targets, checked.

    Raises
    ------
    InputTypeError
        A name is no text.
    InputError
        There is no target, or there are too many.
    """
    named = dict(targets)
    if not 1 <= len(named) <= _MOST:
        raise InputError(f"target must name 1 to {_MOST} objects, not {len(named)}")
    for name in named:
        if not isinstance(name, str) or not name:
            raise InputTypeError(f"target must be named by texts, not by {describe(name)}")
    return named
