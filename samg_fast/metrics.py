"""Figures that stand beside every result: how well two masks agree, and how times spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from samg_fast.checks import Mask

__all__ = ["area_under_curve", "iou", "percentiles"]


def iou(mask: Mask, truth: Mask) -> float:
    """Return the intersection over union of two masks; 1 where both are empty.

    Parameters
    ----------
    mask, truth : (H, W) bool array
    """
    union = int(np.count_nonzero(mask | truth))
    return int(np.count_nonzero(mask & truth)) / union if union else 1.0


def area_under_curve(above: ArrayLike, below: ArrayLike) -> float:
    """Return how often a score of the first kind exceeds one of the second; a tie counts half.

    Parameters
    ----------
    above, below : (n,), (m,) array-like
        At least one each.
    """
    first, second = np.asarray(above)[:, None], np.asarray(below)[None]
    return float((first > second).mean() + 0.5 * (first == second).mean())


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
