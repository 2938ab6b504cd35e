"""Prompts in the decoder's slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samg_fast import ops
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from samg_fast.ops.geometry import Letterbox
from support.devices import Place

SQUARE = Letterbox(10, 10, 10)


def assembled(points: Any, labels: Any, box: Any = None, *, slots: int, letterbox: Letterbox = SQUARE) -> Any:
    """Assemble the prompt of one frame that takes all its points, in order."""
    places = np.reshape(np.array(points, np.int32), (-1, 2))
    order, boxes = np.arange(len(places), dtype=np.int32)[None], None if box is None else np.array([box], np.int32)
    signs, scale = np.array([labels], np.int32), (letterbox.scale_x, letterbox.scale_y)
    return ops.prompt_assembly(places, order, signs, boxes, scale=scale, slots=slots)


def test_without_a_box() -> None:
    coords, labels = assembled([(10, 20), (30, 40)], (1, 0), letterbox=Letterbox(50, 100, 200), slots=6)
    assert coords.dtype == labels.dtype == np.float32
    assert coords[0].tolist() == [[20, 40], [60, 80], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert labels.tolist() == [[1, 0, -1, -2, -2, -2]]


def test_with_a_box_and_full() -> None:
    coords, labels = assembled([(1, 2), (3, 4), (5, 6)], (1, 0, 0), (7, 8, 9, 10), slots=5)
    assert coords[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert labels.tolist() == [[1, 0, 0, 2, 3]]


def test_scales_of_both_axes() -> None:
    """The rounded sides decide, as in SAM: 3 rows of 4 become 8 of 10, not 7.5."""
    coords, _ = assembled([(4, 3)], (1,), letterbox=Letterbox(3, 4, 10), slots=3)
    assert coords[0, 0].tolist() == [10, 8]


def test_prompts_of_different_lengths() -> None:
    points = np.array([(1, 1), (2, 2), (3, 3)], np.int32)
    order, signs = np.array([(0, -1), (1, 2)], np.int32), np.array([(1, 0), (0, 1)], np.int32)
    boxes = np.array([(5, 6, 7, 8), (1, 2, 3, 4)], np.int32)
    coords, labels = ops.prompt_assembly(points, order, signs, boxes, scale=(1, 1), slots=5)
    assert coords.tolist() == [
        [[1, 1], [0, 0], [5, 6], [7, 8], [0, 0]],
        [[2, 2], [3, 3], [1, 2], [3, 4], [0, 0]],
    ]
    assert labels.tolist() == [[1, -2, 2, 3, -2], [0, 1, 2, 3, -2]]


def test_a_box_alone() -> None:
    coords, labels = assembled([], (), (1, 2, 3, 4), slots=3)
    assert coords.tolist() == [[[1, 2], [3, 4], [0, 0]]]
    assert labels.tolist() == [[2, 3, -2]]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize(
    ("batch", "count", "points", "slots"), [(1, 2, 2, 6), (3, 0, 1, 2), (2, 5, 9, 40), (70, 7, 3, 9)]
)
def test_fast_is_the_reference(
    place: Place, batch: int, count: int, points: int, slots: int, boxed: bool, shared: bool
) -> None:
    random = np.random.default_rng(batch)

    def whole(low: int, high: int, *shape: int) -> Any:
        return random.integers(low, high, shape).astype(np.int32)

    places = whole(-5, 2000, points, 2) if shared else whole(-5, 2000, batch, points, 2)
    arrays = places, whole(-2, points + 2, batch, count), whole(0, 2, batch, count)
    boxes = whole(0, 500, batch, 4) if boxed else None
    options: dict[str, Any] = {"scale": (12.190476, 3.7), "slots": slots}
    wanted = reference.prompt_assembly(*arrays, boxes, **options)
    got = ops.prompt_assembly(
        *map(place.put, arrays), None if boxes is None else place.put(boxes), **options, device=place.device
    )
    for array, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(place.get(array), expected)


def test_a_list_that_all_frames_share() -> None:
    points = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    order, labels = np.array([[2, 0], [1, -1]], np.int32), np.ones((2, 2), np.int32)
    coords, slots = ops.prompt_assembly(points, order, labels, None, scale=(1, 1), slots=3)
    assert coords.tolist() == [[[5, 6], [1, 2], [0, 0]], [[3, 4], [0, 0], [0, 0]]]
    assert slots.tolist() == [[1, 1, -1], [1, -2, -1]]


def test_into_given_arrays() -> None:
    points, order = np.array([[[4, 5]]], np.int32), np.zeros((1, 1), np.int32)
    out = np.full((1, 3, 2), 7, np.float32), np.full((1, 3), 7, np.float32)
    assert ops.prompt_assembly(points, order, order, None, scale=(2, 1), slots=3, out=out)[0] is out[0]
    assert out[0].tolist() == [[[8, 5], [0, 0], [0, 0]]]
    assert out[1].tolist() == [[0, -1, -2]]
    with pytest.raises(InputTypeError, match="out must be two arrays, for coordinates and for labels, not list"):
        ops.prompt_assembly(points, order, order, None, scale=(2, 1), slots=3, out=[*out])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"out\[1\] must be float32 of shape \(1, 4\), not float32 of shape \(1, 3\)"):
        ops.prompt_assembly(
            points, order, order, None, scale=(2, 1), slots=4, out=(np.zeros((1, 4, 2), np.float32), out[1])
        )


def test_bad_input() -> None:
    points, order = np.zeros((2, 3, 2), np.int32), np.zeros((2, 4), np.int32)
    boxes = np.zeros((2, 4), np.int32)
    options: dict[str, Any] = {"scale": (1, 1), "slots": 6}
    assert ops.prompt_assembly(points, order, order, boxes, **options)[0].shape == (2, 6, 2)
    with pytest.raises(InputTypeError, match="points must be int32 of shape"):
        ops.prompt_assembly(points.astype(np.float32), order, order, boxes, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"order must be int32 of shape \(2, any\), not int32 of shape \(1, 4\)"):
        ops.prompt_assembly(points, order[:1], order, boxes, **options)
    with pytest.raises(InputError, match=r"labels must be int32 of shape \(2, 4\), not int32 of shape \(2, 3\)"):
        ops.prompt_assembly(points, order, order[:, :3], boxes, **options)
    with pytest.raises(InputError, match=r"boxes must be int32 of shape \(2, 4\)"):
        ops.prompt_assembly(points, order, order, boxes[:1], **options)
    with pytest.raises(InputError, match="slots must be from 6 to 16384, not 5"):
        ops.prompt_assembly(points, order, order, boxes, scale=(1, 1), slots=5)
    for scale in ((1,), (1, float("nan")), ("a", 1)):
        with pytest.raises(InputError, match="scale must be two finite numbers, not"):
            ops.prompt_assembly(points, order, order, boxes, scale=scale, slots=6)  # type: ignore[arg-type]
