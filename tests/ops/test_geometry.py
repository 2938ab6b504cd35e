"""Letterboxes and resize matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from samg_fast.errors import InputError
from samg_fast.ops.geometry import (
    PILLOW_BITS,
    Letterbox,
    Taps,
    cell_matrix,
    chain_matrix,
    chain_taps,
    pillow_taps,
    resize_matrix,
)
from support.slow_walk import bilinear, to_frame

LENGTHS = [(1, 1), (1, 5), (5, 1), (84, 128), (128, 84), (7, 3), (64, 64), (32, 128)]


@pytest.mark.parametrize(
    ("size", "side", "new"),
    [
        ((84, 84), 1024, (1024, 1024)),
        ((480, 640), 512, (384, 512)),
        ((640, 480), 512, (512, 384)),
        ((3, 4), 10, (8, 10)),  # 7.5 rounds up, as in SAM
        ((84, 100), 128, (108, 128)),
        ((1, 1), 7, (7, 7)),
    ],
)
def test_letterbox(size: tuple[int, int], side: int, new: tuple[int, int]) -> None:
    box = Letterbox(*size, side)
    assert (box.new_height, box.new_width) == new


def test_points() -> None:
    box = Letterbox(3, 4, 10)
    wanted = np.array([[0, 0], [5, 8 / 3], [10, 8]])
    np.testing.assert_allclose(box.points(np.array([[0, 0], [2, 1], [4, 3]])), wanted)
    assert box.points(np.zeros((0, 2))).shape == (0, 2)


def test_too_narrow() -> None:
    with pytest.raises(InputError, match=r"1 rows and 3000 columns is too narrow: .* at side 512"):
        Letterbox(1, 3000, 512)


@pytest.mark.parametrize(("n_in", "n_out"), LENGTHS)
def test_resize_matrix(n_in: int, n_out: int) -> None:
    matrix = resize_matrix(n_in, n_out)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert (matrix >= 0).all()
    values = np.random.default_rng(0).standard_normal(n_in)
    np.testing.assert_allclose(matrix @ values, bilinear(values[None], 1, n_out)[0], atol=1e-6)


def test_resize_by_hand() -> None:
    """Halves and doubles as in PyTorch's documentation of align_corners=False."""
    np.testing.assert_allclose(resize_matrix(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(resize_matrix(2, 4), np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))
    np.testing.assert_allclose(resize_matrix(3, 3), np.eye(3))


@pytest.mark.parametrize(("height", "width"), [(84, 84), (30, 50), (9, 4)])
@pytest.mark.parametrize("sides", [(16, 64, 96), (64, 64), (16, 64, 64)])
def test_chain_matrix(height: int, width: int, sides: tuple[int, ...]) -> None:
    plane = np.random.default_rng(1).standard_normal((sides[0], sides[0]))
    box = Letterbox(height, width, sides[-1])
    rows, columns = chain_matrix(sides, box.new_height, height), chain_matrix(sides, box.new_width, width)
    wanted = to_frame(plane, list(sides[1:]), height, width)
    np.testing.assert_allclose(rows @ plane @ columns.T, wanted, atol=2e-6)


@pytest.mark.parametrize(("crop", "n_out"), [(96, 84), (96, 200), (70, 33), (1, 4), (5, 1)])
@pytest.mark.parametrize("sides", [(96,), (64, 96), (16, 64, 96)])
def test_chain_taps(sides: tuple[int, ...], crop: int, n_out: int) -> None:
    taps = chain_taps(sides, crop, n_out)
    assert len(taps.source) <= 4
    np.testing.assert_array_equal(dense(taps, sides[0]), chain_matrix(sides, crop, n_out))


@pytest.mark.parametrize(("n_in", "n_out"), [(84, 512), (640, 84), (7, 7), (5, 1), (1, 9), (1000, 3)])
@pytest.mark.parametrize("taps_of", [pillow_taps, lambda n_in, n_out: chain_taps((n_in,), n_in, n_out)])
def test_sources_are_neighbours(taps_of: Any, n_in: int, n_out: int) -> None:
    """Kernels keep as many rows as there are taps: sources of an output are neighbours, and never go back."""
    source, weight = taps_of(n_in, n_out)
    assert source.dtype == np.int32
    assert source.min() >= 0
    assert source.max() < n_in
    assert np.isin(np.diff(source, axis=0), (0, 1)).all()
    assert (np.diff(source, axis=1) >= 0).all()
    assert (weight[1:][np.diff(source, axis=0) == 0] == 0).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(84, 512), (640, 84), (7, 7), (5, 1), (1, 9)])
def test_pillow_taps(n_in: int, n_out: int) -> None:
    line = np.random.default_rng(n_in).integers(0, 256, n_in, np.uint8)
    wanted = np.asarray(Image.fromarray(line[None]).resize((n_out, 1), Image.Resampling.BILINEAR))[0]
    sums = dense(pillow_taps(n_in, n_out), n_in).astype(np.int64) @ line
    assert ((sums + (1 << PILLOW_BITS - 1) >> PILLOW_BITS) == wanted).all()


def dense(taps: Taps, n_in: int) -> np.ndarray:
    matrix = np.zeros((taps.source.shape[1], n_in), np.float32)
    for source, weight in zip(*taps, strict=True):
        np.add.at(matrix, (np.arange(len(source)), source), weight)
    return matrix


def test_cell_matrix() -> None:
    mask = np.random.default_rng(2).random((20, 31))
    box = Letterbox(20, 31, 64)
    square = np.zeros((64, 64))
    square[: box.new_height, : box.new_width] = bilinear(mask, box.new_height, box.new_width)
    got = cell_matrix(20, box.new_height, 64, 16) @ mask @ cell_matrix(31, box.new_width, 64, 16).T
    np.testing.assert_allclose(got, bilinear(square, 16, 16), atol=1e-6)


def test_cached_matrices_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        resize_matrix(3, 5)[0, 0] = 1
    for array in (*chain_taps((3,), 3, 5), *pillow_taps(3, 5)):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
