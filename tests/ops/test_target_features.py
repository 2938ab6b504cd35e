"""Grid cells of a mask, and point features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samg_fast import ops
from samg_fast.bundle import Bundle
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support.synthetic_bundle import picture


def test_mask_box() -> None:
    box = reference.mask_box
    mask = np.zeros((10, 14), bool)
    assert box(mask) == (1, 1, 13, 9)  # the official answer where there is nothing
    mask[3, 5] = True
    assert box(mask) == (5, 3, 5, 3)
    mask[7, 2] = True
    assert box(mask) == (2, 3, 5, 7)
    assert box(~mask) == (0, 0, 13, 9)
    assert box(np.ones((1, 1), bool)) == (0, 0, 0, 0)
    assert all(type(side) is int for side in box(mask))


@pytest.mark.parametrize(("height", "width"), [(84, 84), (30, 50), (50, 30), (200, 180)])
@pytest.mark.parametrize("grid", [16, 5])
def test_mask_cells(height: int, width: int, grid: int) -> None:
    _, mask = picture(height, width, 3)
    wanted = reference.mask_cells(mask, side=64, grid=grid)
    got = ops.mask_cells(mask, side=64, grid=grid)
    # A cell that the mask's edge only touches may be 0 in one and a rounding error above 0 in the other.
    assert (got != wanted).mean() <= 0.01
    assert got.any()


def test_mask_cells_cover_the_mask() -> None:
    mask = np.zeros((32, 64), bool)
    mask[8:16, 40:48] = True
    cells = ops.mask_cells(mask, side=64, grid=16)
    assert cells[2:4, 10:12].all()
    assert not cells[16 // 2 :].any()
    assert cells.sum() <= 16


def test_a_speck_can_miss_the_grid() -> None:
    mask = np.zeros((64, 64), bool)
    mask[0, 0] = True
    assert not ops.mask_cells(mask, side=64, grid=4).any()


def test_masked_picture_cells(bundle_folder: Path) -> None:
    spec = Bundle.open(bundle_folder).manifest.encoder
    masked = np.zeros((64, 64, 3), np.uint8)
    masked[16:32, 32:48] = (200, 0, 0)
    masked[40:60, 0:20] = (100, 255, 255)  # no red above 123.675: not seen, as in the official code
    cells = ops.masked_picture_cells(masked, spec)
    assert cells[4:8, 8:12].all()
    assert cells.sum() == 16
    assert (cells == reference.masked_picture_cells(masked, spec)).all()


def test_mask_feature() -> None:
    features = np.random.default_rng(0).standard_normal((7, 5, 5)).astype(np.float32)
    cells = np.zeros((5, 5), bool)
    cells[1, 2] = cells[3, 3] = True
    pair = np.stack([features[:, 1, 2], features[:, 3, 3]])
    wanted = (pair.max(0) + pair.mean(0)) / 2
    np.testing.assert_allclose(ops.mask_feature(features, cells), wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 3), (1.5, 2.25), (4, 4), (4.7, 0.5), (5, 5)])
def test_point_feature(x: float, y: float) -> None:
    features = np.random.default_rng(0).standard_normal((7, 5, 5)).astype(np.float32)
    at = np.minimum((x, y), 4)  # beyond the last cell's index the last cell counts
    low, share = np.floor(at).astype(int), at - np.floor(at)
    high = np.minimum(low + 1, 4)
    wanted = sum(
        features[:, v, u] * a * b
        for u, a in ((low[0], 1 - share[0]), (high[0], share[0]))
        for v, b in ((low[1], 1 - share[1]), (high[1], share[1]))
    )
    np.testing.assert_allclose(ops.point_feature(features, x, y), wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize(("x", "y"), [(-0.1, 0), (0, 5.1), (float("nan"), 0)])
def test_point_feature_outside(x: float, y: float) -> None:
    with pytest.raises(InputError, match="x and y must be from 0 to 5"):
        ops.point_feature(np.ones((7, 5, 5), np.float32), x, y)


def test_bad_masks() -> None:
    with pytest.raises(InputTypeError, match=r"mask must be a \(H, W\) bool array, not uint8 of shape"):
        ops.mask_cells(np.ones((9, 9), np.uint8), side=64, grid=4)
    with pytest.raises(InputError, match="mask must have two dimensions"):
        ops.mask_cells(np.ones((9, 9, 1), bool), side=64, grid=4)
    with pytest.raises(InputError, match="cells is empty"):
        ops.mask_feature(np.ones((7, 5, 5), np.float32), np.zeros((5, 5), bool))
    with pytest.raises(InputError, match=r"cells must have the map's size \(5, 5\), not \(5, 6\)"):
        ops.mask_feature(np.ones((7, 5, 5), np.float32), np.ones((5, 6), bool))
