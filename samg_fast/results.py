"""What `Segmenter.segment` returns: the mask of a frame, how long it took, and on request what every step saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.checks import Box, Floats, Frame, Mask

__all__ = ["Decode", "Segmentation", "Trace"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Decode:
    """What one decode got and gave.

    Parameters
    ----------
    points : (n, 2) float32 array
        Points (x, y) in pixels of the frame, in the order given; box corners and empty slots apart.
    labels : (n,) int64 array
        1 for a positive point, 0 for a negative one.
    box : tuple or None
        (x_min, y_min, x_max, y_max) in pixels of the frame; None in the first decode.
    iou : (3,) float32 array
        Predicted IoU of each mask.
    low_res : (3, 4G, 4G) float32 array
        Logits of each mask at the decoder's resolution.
    mask : (H, W) bool array
        What the decode decides: in the first the weighted mask, then the one with the best predicted IoU.
    """

    points: Floats
    labels: NDArray[np.int64]
    box: Box | None
    iou: Floats
    low_res: Floats
    mask: Mask


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """What each step of a frame saw.

    Parameters
    ----------
    similarity : list of (H, W) float32 arrays
        The target's similarity map, then one per part.
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
        Where the target is. SAM-G always proposes a mask, even where the target is absent: see `score`.
    score : float
        Predicted IoU of the mask.
    box : tuple or None
        (x_min, y_min, x_max, y_max), corners inclusive; None if the mask is empty.
    timings : dict of str to float
        Milliseconds of each of `samg_fast.pipeline.stopwatch.STAGES` and of the ``"total"``; in a batch, of the batch
        divided by its frames. ``"features"`` is 0 where the features come from the encoder's graph. On a GPU a frame is
        one launch, and the ``"total"`` is all there is.
    trace : Trace or None
        What each step saw, if asked for.
    """

    frame: Frame
    mask: Mask
    score: float
    box: Box | None
    timings: dict[str, float]
    trace: Trace | None = None

    @property
    def masked(self) -> Frame:
        """Masked observation, (H, W, 3) uint8: the frame where the mask is set, black elsewhere."""
        return ops.apply_mask(self.frame, self.mask)
