"""Pictures to look at: sizes, and the pixels that carry the meaning."""

from __future__ import annotations

import numpy as np
import pytest

from samg_fast.errors import InputError
from samg_fast.media.drawing import (
    MASK,
    NEGATIVE,
    PAPER,
    POSITIVE,
    Row,
    contact_sheet,
    draw_points,
    enlarge,
    heat_map,
    overlay,
    side_by_side,
    watchable,
)

GREY = np.full((10, 12, 3), 100, np.uint8)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


@pytest.mark.parametrize(("size", "factor"), [((84, 84), 4), ((160, 160), 2), ((1, 1), 336), ((480, 640), 1)])
def test_watchable(size: tuple[int, int], factor: int) -> None:
    assert watchable(*size) == factor


def test_enlarge_repeats_pixels() -> None:
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    large = enlarge(picture, 3)
    assert large.shape == (6, 9, 3)
    assert np.array_equal(large[1::3, 1::3], picture)
    assert (large[3:6, 6:9] == picture[1, 2]).all()


def test_enlarge_draws_masks_in_black_and_white() -> None:
    large = enlarge(np.array([[True, False]]), 2)
    assert large.dtype == np.uint8
    assert (large[:, :2] == 255).all()
    assert (large[:, 2:] == 0).all()


@pytest.mark.parametrize("factor", [1, 4])
def test_overlay_outlines_the_mask_and_leaves_the_rest(factor: int) -> None:
    mask = np.zeros((10, 12), bool)
    mask[3:8, 4:9] = True
    frame = GREY.copy()
    drawn = overlay(frame, mask, factor=factor)
    assert drawn.shape == (10 * factor, 12 * factor, 3)
    assert tuple(drawn[3 * factor, 4 * factor]) == MASK
    assert (drawn[: 3 * factor] == 100).all()
    middle = drawn[5 * factor, 6 * factor]
    assert tuple(middle) not in ((100, 100, 100), MASK)
    assert (frame == 100).all()


def test_overlay_of_an_empty_mask_is_the_frame() -> None:
    assert np.array_equal(overlay(GREY, np.zeros((10, 12), bool)), GREY)


def test_overlay_refuses_a_mask_of_another_size() -> None:
    with pytest.raises(InputError, match=r"\(10, 12\), got \(10, 11\)"):
        overlay(GREY, np.zeros((10, 11), bool))


def test_heat_map_rises_from_dark_to_bright() -> None:
    drawn = heat_map([[-1.0, 0.0, 1.0]])
    assert drawn.shape == (1, 3, 3)
    assert drawn.dtype == np.uint8
    brightness = drawn.astype(int).sum(axis=-1)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert np.array_equal(heat_map([[0.0, 5.0]], low=0, high=10)[0, 1], heat_map([[0.0, 0.5, 1.0]])[0, 1])


@pytest.mark.parametrize("values", [[[2.0, 2.0]], [[np.nan, np.nan]], [[np.nan, np.inf]]])
def test_heat_map_of_values_without_a_range(values: list[list[float]]) -> None:
    assert heat_map(values).shape == (1, 2, 3)


def test_points_are_drawn_where_they_are() -> None:
    drawn = draw_points(enlarge(GREY, 8), [(2, 3), (9, 6)], [1, 0], factor=8)
    assert tuple(drawn[3 * 8 + 4, 2 * 8 + 4]) == POSITIVE
    assert tuple(drawn[6 * 8 + 4, 9 * 8 + 4]) == NEGATIVE
    assert np.array_equal(draw_points(GREY, [], []), GREY)


def test_side_by_side() -> None:
    bare = side_by_side([GREY, GREY], gap=4)
    assert bare.shape == (10, 28, 3)
    assert tuple(bare[5, 13]) == PAPER
    captioned = side_by_side([GREY, GREY], caption="walker")
    assert captioned.shape[0] > 10
    assert (captioned[10:] != PAPER).any()


def test_contact_sheet_holds_every_picture() -> None:
    red, blue = np.zeros((20, 30, 3), np.uint8), np.zeros((40, 10, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = contact_sheet([Row("first", [red, blue], ["note"]), Row("second\nline", [blue])], ["a", "b"])
    assert (sheet == (255, 0, 0)).all(axis=-1).sum() == red.shape[0] * red.shape[1]
    assert (sheet == (0, 0, 255)).all(axis=-1).sum() == 2 * blue.shape[0] * blue.shape[1]
    assert has(sheet, PAPER)


@pytest.mark.parametrize("rows", [[], [Row("empty", [])]])
def test_contact_sheet_of_nothing(rows: list[Row]) -> None:
    with pytest.raises(InputError, match="at least one picture"):
        contact_sheet(rows)
