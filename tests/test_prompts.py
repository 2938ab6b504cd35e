"""Prompts in the decoder's slots."""

from __future__ import annotations

import numpy as np

from samg_fast.geometry import Letterbox
from samg_fast.prompts import Prompt, fill_slots


def test_without_a_box() -> None:
    coords, labels = fill_slots([Prompt(((10, 20), (30, 40)), (1, 0))], Letterbox(50, 100, 200), 6)
    assert coords.dtype == labels.dtype == np.float32
    assert coords[0].tolist() == [[20, 40], [60, 80], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert labels.tolist() == [[1, 0, -1, -2, -2, -2]]


def test_with_a_box_and_full() -> None:
    prompt = Prompt(((1, 2), (3, 4)), (1, 0)).refined((5, 6), (7, 8, 9, 10))
    coords, labels = fill_slots([prompt], Letterbox(10, 10, 10), 5)
    assert coords[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert labels.tolist() == [[1, 0, 0, 2, 3]]


def test_scales_of_both_axes() -> None:
    """The rounded sides decide, as in SAM: 3 rows of 4 become 8 of 10, not 7.5."""
    coords, _ = fill_slots([Prompt(((4, 3),), (1,))], Letterbox(3, 4, 10), 3)
    assert coords[0, 0].tolist() == [10, 8]


def test_batch() -> None:
    prompts = [Prompt(((1, 1),), (1,)), Prompt(((2, 2), (3, 3)), (0, 1), (1, 2, 3, 4))]
    coords, labels = fill_slots(prompts, Letterbox(10, 10, 10), 4)
    assert coords.shape == (2, 4, 2)
    assert labels.tolist() == [[1, -1, -2, -2], [0, 1, 2, 3]]
