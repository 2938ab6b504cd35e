"""SAM-G's three decodes (arXiv 2312.17116): what each of them gets, and what becomes of its masks.

Written once, for the host and for a GPU. A batch of B frames with M similarity maps each, of the target and of its
parts, has one array of points, (B * (M + 2), 2) int32; `PointRows` says which of its rows are which points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Box

__all__ = ["SCHEDULE", "DecodeRule", "PointRows", "PointSlots", "point_rows", "point_slots", "searched_box"]

_POSITIVE, _NEGATIVE = 1, 0


@dataclass(frozen=True)
class DecodeRule:
    """One decode.

    Parameters
    ----------
    negatives : tuple of str
        Its negative points, as fields of `PointRows`. The first comes behind the target's positive point, the others
        behind those of the parts.
    refines : bool
        Whether it gets what the decode before it found: the mask's bounding box, and its logits as mask input.
    weighted : bool
        Whether its three masks are summed with the target's weights; else the best by predicted IoU is taken.
    """

    negatives: tuple[str, ...]
    refines: bool
    weighted: bool

    @property
    def searches_box(self) -> bool:
        """Whether ``"min_in_box"`` has to be found before it: the decode is the first to get that point."""
        return self.negatives[-1] == "min_in_box"

    def points(self, maps: int) -> int:
        """How many points it gets of a frame with so many similarity maps."""
        return maps + len(self.negatives)


SCHEDULE = (
    DecodeRule(("min",), refines=False, weighted=True),
    DecodeRule(("min", "min_in_box"), refines=True, weighted=False),
    # The global negative point once more, as in the official code
    DecodeRule(("min", "min_in_box", "min"), refines=True, weighted=False),
)
"""The decodes of a frame, in order."""


class PointRows(NamedTuple):
    """Which rows of a batch's points are which.

    Parameters
    ----------
    max : slice
        What is most similar to each feature: B * M rows, frame by frame.
    min : slice
        What is least similar to the target, in `searched_box` of the frame: B rows.
    min_in_box : slice
        The same in the box of the first decode's mask: B rows.
    """

    max: slice
    min: slice
    min_in_box: slice


@lru_cache(maxsize=256)
def point_rows(batch: int, maps: int) -> PointRows:
    """Return the rows of a batch of frames with so many similarity maps each."""
    ends = [batch * maps, batch * (maps + 1), batch * (maps + 2)]
    return PointRows(*map(slice, [0, *ends], ends))


class PointSlots(NamedTuple):
    """Which points a decode gets, in which order, as `samg_fast.ops.prompt_assembly` takes them.

    Parameters
    ----------
    order : (B, n) int32 array
        Rows of the batch's points; -1 where a target has fewer parts than others.
    labels : (B, n) int32 array
        1 for a positive point, 0 for a negative one.
    """

    order: NDArray[np.int32]
    labels: NDArray[np.int32]


@lru_cache(maxsize=256)
def point_slots(parts: tuple[int, ...]) -> tuple[PointSlots, ...]:
    """Return the slots of each decode, read-only.

    In order: the target's point, the global negative one, those of the parts, the negative ones of later decodes.

    Parameters
    ----------
    parts : tuple of B int
        How many parts each frame's target has.
    """
    maps = 1 + max(parts)
    rows = point_rows(len(parts), maps)
    return tuple(_slots(rule, rows, maps, parts) for rule in SCHEDULE)


def searched_box(height: int, width: int) -> Box:
    """Return where in a frame the global negative point may be, for `samg_fast.ops.topk_points`.

    The official code leaves out the last row and column here, as it does of a mask's bounding box.
    """
    return 0, 0, width - 1, height - 1


def _slots(rule: DecodeRule, rows: PointRows, maps: int, parts: Sequence[int]) -> PointSlots:
    shape = len(parts), rule.points(maps)
    order, labels = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    for frame, count in enumerate(parts):
        first, *others = (getattr(rows, name).start + frame for name in rule.negatives)
        target = rows.max.start + frame * maps
        chosen = [target, first, *range(target + 1, target + 1 + count), *others]
        order[frame, : len(chosen)] = chosen
        labels[frame, : len(chosen)] = [_POSITIVE, _NEGATIVE, *[_POSITIVE] * count, *[_NEGATIVE] * len(others)]
    for array in (order, labels):
        array.setflags(write=False)
    return PointSlots(order, labels)
