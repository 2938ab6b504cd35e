"""Figures that stand beside every result: how well two masks agree, and how times spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from samg_fast.checks import Mask

__all__ = ["iou", "percentiles"]


def iou(mask: Mask, truth: Mask) -> float:
    """Return the intersection over union of two masks; 1 where both are empty.

    Parameters
    ----------
    mask, truth : (H, W) bool array
    """
    union = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / union if union else 1.0


def percentiles(values: Sequence[float] | NDArray[Any], *ranks: int) -> dict[str, float]:
    """Return percentiles of some values, between two of them as NumPy interpolates.

    Parameters
    ----------
    values : sequence of float
        At least one.
    *ranks : int
        In percent: 50 gives the median.

    Returns
    -------
    dict of str to float
        ``"p50"`` and so on, one entry per rank, in the values' unit.
    """
    found = np.percentile(values, ranks).tolist()
    return {f"p{rank}": value for rank, value in zip(ranks, found, strict=True)}
