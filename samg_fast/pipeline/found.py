"""From masks at the frames' size to what users get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from samg_fast.checks import Box, Frame
from samg_fast.ops.reference import ResizedLogits
from samg_fast.results import Segmentation, Trace

__all__ = ["segmentations"]


def segmentations(
    frames: Frame,
    found: ResizedLogits,
    scores: Sequence[float],
    timings: Mapping[str, float],
    threshold: float | None,
    traces: Sequence[Trace | None] | None = None,
) -> list[Segmentation]:
    """Return what was found in a batch of frames, (B, H, W, 3) uint8, each with its own copies."""
    boxes: list[Box] = [(x0, y0, x1, y1) for x0, y0, x1, y1 in found.box.tolist()]
    return [
        Segmentation(
            frame=frame.copy(),
            mask=found.mask[index],
            score=scores[index],
            box=boxes[index] if found.area[index] else None,
            timings=dict(timings),
            trace=None if traces is None else traces[index],
            threshold=threshold,
        )
        for index, frame in enumerate(frames)
    ]
