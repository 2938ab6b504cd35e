"""Outlines run along the edges of pixels, and are the mask again when they are filled."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast.shapes import Ring, joined, polygons

Mask = NDArray[np.bool_]


def drawn(text: str) -> Mask:
    return np.array([[each == "#" for each in row] for row in text.split()])


def filled(rings: list[Ring], shape: tuple[int, ...]) -> Mask:
    """Fill by the even-odd rule: a pixel is set if an odd number of upright edges is to the left of its centre."""
    inside = np.zeros(shape, np.bool_)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            for y in range(min(y0, y1), max(y0, y1)):
                x = x0 + (x1 - x0) * (y + 0.5 - y0) / (y1 - y0)
                inside[y] ^= np.arange(shape[1]) + 0.5 > x
    return inside


def area(ring: Ring) -> float:
    x, y = ring.T.astype(float)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_a_pixel() -> None:
    ((ring,),) = polygons(drawn("... .#. ..."))
    assert ring.tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert ring.dtype == np.int32


def test_nothing() -> None:
    assert polygons(np.zeros((4, 5), np.bool_)) == []


def test_holes_belong_to_their_piece() -> None:
    mask = drawn("""
        #######..###
        #.....#..#.#
        #.###.#..###
        #.#.#.#..#.#
        #.###.#..###
        #.....#.....
        #######...#.
    """)
    pieces = polygons(mask)
    assert [len(piece) for piece in pieces] == [2, 3, 2, 1]
    # Holes run the other way round, so that areas add up.
    assert [[area(ring) for ring in piece] for piece in pieces] == [[49, -25], [15, -1, -1], [9, -1], [1]]


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    assert [len(piece) for piece in polygons(drawn("##.. ##.. ..##"))] == [1]
    assert [len(piece) for piece in polygons(drawn("..## ..## ##.."))] == [1]
    # Holes that touch at a corner are two: what surrounds them holds together there.
    assert [len(piece) for piece in polygons(drawn("#### #.## ##.# ####"))] == [3]


@pytest.mark.parametrize("seed", range(40))
def test_filled_they_are_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    mask = rng.random((height, width)) < rng.random()
    pieces = polygons(mask)
    rings = [ring for piece in pieces for ring in piece]
    np.testing.assert_array_equal(filled(rings, mask.shape), mask)
    assert sum(area(ring) for ring in rings) == mask.sum()
    assert all(area(outer) > 0 and all(area(hole) < 0 for hole in holes) for outer, *holes in pieces)
    assert all((filled(piece, mask.shape) <= mask).all() for piece in pieces)
    if rings:
        np.testing.assert_array_equal(filled([joined(rings)], mask.shape), mask)


@pytest.mark.parametrize("seed", range(10))
def test_pieces_are_those_of_opencv(seed: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    mask = np.random.default_rng(seed).random((30, 40)) < 0.6
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    del contours
    outer = [each for each in range(len(tree[0])) if tree[0][each][3] < 0]
    holes = [sum(tree[0][:, 3] == each) for each in outer]
    assert sorted(len(piece) - 1 for piece in polygons(mask)) == sorted(holes)


def test_pycocotools_makes_the_mask_of_them() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    mask = rng.random((12, 15)).repeat(4, axis=0).repeat(4, axis=1) < 0.6
    flat = [joined(piece).ravel().tolist() for piece in polygons(mask)]
    union = coco.merge(coco.frPyObjects(flat, *mask.shape))
    np.testing.assert_array_equal(coco.decode(union), mask)
