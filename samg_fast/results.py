"""What `Segmenter.segment` returns: the mask of a frame, its timings and, on request, a trace of every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.checks import Box, Floats, Frame, Mask

__all__ = ["Decode", "Segmentation", "Trace", "is_present"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decode:
    """Inputs and outputs of one decode.

    Parameters
    ----------
    points : (n, 2) float32 array
        Points (x, y) in pixels of the frame, in the order given to the decoder, without box corners and empty slots.
    labels : (n,) int64 array
        1 for a positive point, 0 for a negative one.
    box : tuple or None
        (x_min, y_min, x_max, y_max) in pixels of the frame; None in the first decode.
    iou : (3,) float32 array
        Predicted IoU of each mask.
    low_res : (3, 4G, 4G) float32 array
        Logits of each mask at the decoder's resolution.
    mask : (H, W) bool array
        The chosen mask: the weighted mask in the first decode, the one with the best predicted IoU in the others.
    """

    points: Floats
    labels: NDArray[np.int64]
    box: Box | None
    iou: Floats
    low_res: Floats
    mask: Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """Intermediate results of every step of a frame.

    Parameters
    ----------
    similarity : list of (H, W) float32 arrays
        The target's similarity map, then that of each part.
    decodes : tuple of 3 Decode
    """

    similarity: list[Floats]
    decodes: tuple[Decode, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """The target found in a frame.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        A copy of the frame.
    mask : (H, W) bool array
        Where the target is. SAM-G always proposes a mask, even if the target is absent: see `present`.
    score : float
        Predicted IoU of the mask.
    box : tuple or None
        (x_min, y_min, x_max, y_max) in pixels, corners inclusive; None if the mask is empty.
    timings : dict of str to float
        Milliseconds of each of `samg_fast.pipeline.stopwatch.STAGES` and of the ``"total"``; in a batch, the batch's
        time divided by its number of frames. ``"features"`` is 0 if the encoder's graph computes the features too. On
        a GPU a frame is one launch, so there is only the ``"total"``.
    trace : Trace or None
        Intermediate results of every step, if requested.
    threshold : float or None
        Score from which the bundle takes a target for present, `Manifest.present`; None where it states none.
    """

    frame: Frame
    mask: Mask
    score: float
    box: Box | None
    timings: dict[str, float]
    trace: Trace | None = None
    threshold: float | None = None

    @property
    def present(self) -> bool:
        """Whether the target is there: the mask is not empty, and the score reaches the bundle's threshold, if any."""
        return is_present(self.score, self.box, self.threshold)

    @property
    def masked(self) -> Frame:
        """The masked observation, (H, W, 3) uint8: the frame where the mask is set, black elsewhere."""
        return ops.apply_mask(self.frame, self.mask)


def is_present(score: float, box: Box | None, threshold: float | None) -> bool:
    """Return whether a mask counts as a target that is there: it is not empty, and scores the threshold, if any."""
    return box is not None and (threshold is None or score >= threshold)
