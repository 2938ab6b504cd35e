"""Points: the official implementation's on recorded maps, ties, NaN, boxes and edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.devices.cpu import CPU, Cpu
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support import paths
from support.devices import NAMES, Place, opened

GOLDEN = np.load(paths.GOLDEN / "points.npz")
FRAMES = sorted({".".join(key.split(".")[:2]) for key in GOLDEN.files})


@pytest.fixture(params=["reference", *NAMES])
def topk(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give the definition, then each device's kernel, as one function."""
    if request.param == "reference":
        yield reference.topk_points
        return
    with opened(request.param) as place:

        def run(values: NDArray[np.float32], k: int, largest: bool, box: Any = None) -> NDArray[np.int32]:
            return place.get(ops.topk_points(place.put(values), k, largest, box, device=place.device))

        yield run


@pytest.mark.parametrize("frame", FRAMES)
def test_official_points(topk: Any, frame: str) -> None:
    """The recorded maps give the recorded points, and the points of each decode come in SAM-G's order."""
    kinds = [key for key in GOLDEN.files if key.startswith(frame) and key.endswith(".kind")]
    count = len(kinds)
    whole = GOLDEN[f"{frame}.similarity0.map"]  # recorded again, and equal, for each of three negative points
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


def test_ties_go_to_the_lowest_index(topk: Any) -> None:
    values = np.zeros((4, 5), np.float32)
    assert topk(values, 3, True).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert topk(values, 1, False).tolist() == [[0, 0]]
    values[2, 3] = values[1, 4] = 1
    values[3, 0] = values[0, 2] = -1
    assert topk(values, 3, True).tolist() == [[4, 1], [3, 2], [0, 0]]
    assert topk(values, 3, False).tolist() == [[2, 0], [0, 3], [0, 0]]


@pytest.mark.parametrize("largest", [True, False])
def test_all_of_them(topk: Any, largest: bool) -> None:
    values = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    points = topk(values, 21, largest)
    ordered = values[points[:, 1], points[:, 0]]
    assert (np.diff(ordered) <= 0).all() if largest else (np.diff(ordered) >= 0).all()
    assert len({tuple(point) for point in points.tolist()}) == 21


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


def test_box_is_half_open(topk: Any) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert topk(values, 1, True, (1, 1, 4, 3)).tolist() == [[3, 2]]
    assert topk(values, 2, False, (1, 1, 4, 3)).tolist() == [[1, 1], [2, 1]]
    assert topk(values, 1, True, (-3, -3, 99, 99)).tolist() == [[4, 3]]


@pytest.mark.parametrize("box", [(2, 2, 2, 4), (2, 2, 4, 2), (3, 3, 1, 1), (9, 9, 12, 12)])
def test_empty_box_is_the_origin(topk: Any, box: tuple[int, int, int, int]) -> None:
    assert topk(np.ones((5, 5), np.float32), 1, False, box).tolist() == [[0, 0]]


def test_small_box_is_filled_up(topk: Any) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert topk(values, 3, True, (1, 1, 3, 2)).tolist() == [[2, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (13, 31), (84, 84), (131, 257)])
@pytest.mark.parametrize("largest", [True, False])
def test_fast_is_the_reference(topk: Any, size: tuple[int, int], largest: bool) -> None:
    random = np.random.default_rng(3)
    values = random.integers(0, 4, size).astype(np.float32)
    values[random.random(size) < 0.1] = np.nan
    for k in {1, min(3, values.size), min(64, values.size)}:
        for box in (None, (0, 0, size[1] - 1, size[0] - 1)):
            wanted = reference.topk_points(values, k, largest, box)
            assert (topk(values, k, largest, box) == wanted).all()


@pytest.mark.parametrize("largest", [True, False])
def test_more_than_one_pass(topk: Any, largest: bool) -> None:
    """As many values as there may be; the box begins and ends inside chunks of the map."""
    values = np.random.default_rng(5).integers(0, 1000, (1023, 1025)).astype(np.float32)
    values[700, 3] = values[40, 1000] = 2000
    values[700, 5] = values[41, 7] = -5
    for box in ((0, 0, 1025, 1023), (3, 40, 1000, 701)):
        x0, y0, x1, y1 = box
        inside = values[y0:y1, x0:x1]
        order = np.argsort(-inside if largest else inside, axis=None, kind="stable")[:5]
        y, x = np.divmod(order, x1 - x0)
        assert topk(values, 5, largest, box).tolist() == np.stack([x + x0, y + y0], axis=1).tolist()


def test_ascending_values_are_all_kept_in_turn(topk: Any) -> None:
    values = np.arange(3000, dtype=np.float32).reshape(50, 60)
    points = topk(values, 64, True)
    assert (points[:, 1] * 60 + points[:, 0]).tolist() == list(range(2999, 2935, -1))


def test_infinities_and_signed_zero(topk: Any) -> None:
    values = np.array([[-0.0, 0.0, np.inf], [-np.inf, np.nan, 0.0]], np.float32)
    assert topk(values, 6, True).tolist() == [[2, 0], [0, 0], [1, 0], [2, 1], [0, 1], [1, 1]]
    assert topk(values, 6, False).tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [2, 1], [2, 0]]


def test_a_box_of_any_numbers(topk: Any) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    far = 2**31 - 1
    assert topk(values, 1, True, (-far - 1, -far - 1, far, far)).tolist() == [[4, 3]]
    assert topk(values, 1, True, (far, far, -far - 1, -far - 1)).tolist() == [[0, 0]]
    assert topk(values, 2, True, (4, 3, far, far)).tolist() == [[4, 3], [0, 0]]
    assert topk(values, 1, False, (-(10**12), 2, 10**12, 10**12)).tolist() == [[0, 2]]


def test_batches_with_boxes_of_their_own(place: Place) -> None:
    random = np.random.default_rng(6)
    values = random.standard_normal((5, 13, 17)).astype(np.float32)
    boxes = random.integers(-3, 20, (5, 4)).astype(np.int32)
    got = place.get(ops.topk_points(place.put(values), 4, False, place.put(boxes), device=place.device))
    for index in range(5):
        wanted = reference.topk_points(values[index], 4, False, tuple(boxes[index].tolist()))
        assert (got[index] == wanted).all()


def test_bad_box() -> None:
    values = np.ones((2, 5, 5), np.float32)
    with pytest.raises(InputError, match=r"box must be int32 of shape \(2, 4\), not int32 of shape \(4,\)"):
        ops.topk_points(values, 1, True, np.zeros(4, np.int32))
    with pytest.raises(InputTypeError, match=r"box must be int32 of shape \(4,\), not int64"):
        ops.topk_points(values[0], 1, True, np.zeros(4, np.int64))
    with pytest.raises(InputError, match=r"box must be four whole numbers \(x0, y0, x1, y1\), not \(1, 2, 3\)"):
        ops.topk_points(values, 1, True, (1, 2, 3))  # type: ignore[arg-type]


def test_strided_map() -> None:
    values = np.random.default_rng(4).standard_normal((9, 14)).astype(np.float32)
    assert (ops.topk_points(values.T, 5, True) == ops.topk_points(values.T.copy(), 5, True)).all()


@pytest.mark.parametrize("device", [CPU, Cpu(1)])
def test_one_map_of_each_group(device: Cpu) -> None:
    """Every third map of a larger array, without a copy."""
    values = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    found = ops.topk_points(values[:, 1], 2, True, device=device)
    assert found.tolist() == [reference.topk_points(each, 2, True).tolist() for each in values[:, 1]]


def test_too_large() -> None:
    with pytest.raises(InputError, match="values must have from 1 to 4194304 values a map, not 2049 x 2048"):
        ops.topk_points(np.zeros((2049, 2048), np.float32), 1, True)
    with pytest.raises(InputError, match="k must be from 1 to 64"):
        ops.topk_points(np.zeros((9, 9), np.float32), 65, True)


@pytest.mark.parametrize("k", [0, -1, 26])
def test_bad_k(k: int) -> None:
    with pytest.raises(InputError, match="k must be from 1 to 25"):
        ops.topk_points(np.ones((5, 5), np.float32), k, True)


def test_bad_map() -> None:
    with pytest.raises(InputTypeError, match="values must be float32"):
        ops.topk_points(np.ones((5, 5)), 1, True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="values must be float32"):
        ops.topk_points(np.ones(5, np.float32), 1, True)
