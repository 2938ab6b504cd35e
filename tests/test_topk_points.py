"""Points: the official implementation's on recorded maps, ties, NaN, boxes and edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast import ops, reference
from samg_fast.errors import InputError, InputTypeError

GOLDEN = np.load(Path(__file__).parent / "golden" / "points.npz")
FRAMES = sorted({".".join(key.split(".")[:2]) for key in GOLDEN.files})
BOTH = pytest.mark.parametrize("topk", [reference.topk_points, ops.topk_points])


@BOTH
@pytest.mark.parametrize("frame", FRAMES)
def test_official_points(topk: Any, frame: str) -> None:
    """The recorded maps give the recorded points, and the points of each decode come in SAM-G's order."""
    kinds = [key for key in GOLDEN.files if key.startswith(frame) and key.endswith(".kind")]
    count = len(kinds)
    whole = GOLDEN[f"{frame}.similarity0.map"]  # recorded three times more for the negative points, and equal
    height, width = whole.shape
    global_box = (0, 0, width - 1, height - 1)
    found = []
    for index in range(count):
        kind = str(GOLDEN[f"{frame}.similarity{index}.kind"])
        values = GOLDEN[f"{frame}.similarity{index}.map"] if kind == "pos" else whole
        box = None if kind == "pos" else global_box
        if index == count - 2:
            box = tuple(GOLDEN[f"{frame}.decode1.box"][0].tolist())
        point = topk(values, 1, kind == "pos", box)
        assert (point == GOLDEN[f"{frame}.similarity{index}.xy"]).all()
        found.append(point[0].tolist())
    for turn in range(3):
        first = count - 2 + turn
        assert GOLDEN[f"{frame}.decode{turn}.points_xy"].tolist() == found[:first]
        assert GOLDEN[f"{frame}.decode{turn}.labels"].tolist() == [1, 0, *[1] * (count - 4), 0, 0][:first]


@BOTH
def test_ties_go_to_the_lowest_index(topk: Any) -> None:
    values = np.zeros((4, 5), np.float32)
    assert topk(values, 3, True).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert topk(values, 1, False).tolist() == [[0, 0]]
    values[2, 3] = values[1, 4] = 1
    values[3, 0] = values[0, 2] = -1
    assert topk(values, 3, True).tolist() == [[4, 1], [3, 2], [0, 0]]
    assert topk(values, 3, False).tolist() == [[2, 0], [0, 3], [0, 0]]


@BOTH
@pytest.mark.parametrize("largest", [True, False])
def test_all_of_them(topk: Any, largest: bool) -> None:
    values = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    points = topk(values, 21, largest)
    ordered = values[points[:, 1], points[:, 0]]
    assert (np.diff(ordered) <= 0).all() if largest else (np.diff(ordered) >= 0).all()
    assert len({tuple(point) for point in points.tolist()}) == 21


@BOTH
def test_nan_is_minus_infinity(topk: Any) -> None:
    values = np.zeros((3, 3), np.float32)
    values[0, 0] = values[2, 1] = np.nan
    values[1, 1] = -np.inf
    values[2, 2] = 5
    assert topk(values, 1, True).tolist() == [[2, 2]]
    assert topk(values, 4, False).tolist() == [[0, 0], [1, 1], [1, 2], [1, 0]]
    values[0, 0] = 0
    assert topk(values, 1, False).tolist() == [[1, 1]]
    assert topk(np.full((2, 2), np.nan, np.float32), 1, True).tolist() == [[0, 0]]


@BOTH
def test_box_is_half_open(topk: Any) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert topk(values, 1, True, (1, 1, 4, 3)).tolist() == [[3, 2]]
    assert topk(values, 2, False, (1, 1, 4, 3)).tolist() == [[1, 1], [2, 1]]
    assert topk(values, 1, True, (-3, -3, 99, 99)).tolist() == [[4, 3]]


@BOTH
@pytest.mark.parametrize("box", [(2, 2, 2, 4), (2, 2, 4, 2), (3, 3, 1, 1), (9, 9, 12, 12)])
def test_empty_box_is_the_origin(topk: Any, box: tuple[int, int, int, int]) -> None:
    assert topk(np.ones((5, 5), np.float32), 1, False, box).tolist() == [[0, 0]]


@BOTH
def test_small_box_is_filled_up(topk: Any) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert topk(values, 3, True, (1, 1, 3, 2)).tolist() == [[2, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (13, 31)])
@pytest.mark.parametrize("largest", [True, False])
def test_fast_is_the_reference(size: tuple[int, int], largest: bool) -> None:
    random = np.random.default_rng(3)
    values = random.integers(0, 4, size).astype(np.float32)
    values[random.random(size) < 0.1] = np.nan
    for k in {1, min(3, values.size), values.size}:
        for box in (None, (0, 0, size[1] - 1, size[0] - 1)):
            wanted = reference.topk_points(values, k, largest, box)
            assert (ops.topk_points(values, k, largest, box) == wanted).all()


def test_strided_map() -> None:
    values = np.random.default_rng(4).standard_normal((9, 14)).astype(np.float32)
    assert (ops.topk_points(values.T, 5, True) == ops.topk_points(values.T.copy(), 5, True)).all()


@pytest.mark.parametrize("k", [0, -1, 26])
def test_bad_k(k: int) -> None:
    with pytest.raises(InputError, match="k must be from 1 to 25"):
        ops.topk_points(np.ones((5, 5), np.float32), k, True)


def test_bad_map() -> None:
    with pytest.raises(InputTypeError, match="values must be float32"):
        ops.topk_points(np.ones((5, 5)), 1, True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="values must be float32"):
        ops.topk_points(np.ones((1, 5, 5), np.float32), 1, True)
