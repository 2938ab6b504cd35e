"""Agreement of masks and spread of times, against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from samg_fast.metrics import area_under_curve, iou, percentiles


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [([1, 1, 0, 0], [1, 1, 0, 0], 1), ([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3), ([1, 0], [0, 1], 0), ([0, 0], [0, 1], 0)],
)
def test_iou(mask: list[int], truth: list[int], expected: float) -> None:
    assert iou(np.array([mask], bool), np.array([truth], bool)) == pytest.approx(expected)


def test_iou_of_two_empty_masks_is_one() -> None:
    assert iou(np.zeros((3, 3), bool), np.zeros((3, 3), bool)) == 1


def test_percentiles_are_interpolated() -> None:
    assert percentiles([3.0, 1.0, 2.0], 25, 50, 95) == {"p25": 1.5, "p50": 2.0, "p95": 2.9}
    assert percentiles(range(101), 99, 100) == {"p99": 99.0, "p100": 100.0}


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [([0.9, 0.8], [0.1, 0.2, 0.3], 1.0), ([0.1], [0.9, 0.8], 0.0), ([0.5], [0.5], 0.5), ([1, 3], [2, 2, 3], 2.5 / 6)],
)
def test_area_under_curve(above: list[float], below: list[float], expected: float) -> None:
    """Of the last: 1 is above none of three, 3 above two and equal to one."""
    assert area_under_curve(above, below) == pytest.approx(expected)
