"""Masked observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support.devices import Place
from support.synthetic_bundle import picture


def run(place: Place, *arrays: NDArray[Any]) -> NDArray[np.uint8]:
    return place.get(ops.apply_mask(*map(place.put, arrays), device=place.device))


def test_black(place: Place) -> None:
    frame, mask = picture(30, 20)
    masked = run(place, frame, mask)
    assert masked.dtype == np.uint8
    assert (masked[mask] == frame[mask]).all()
    assert (masked[~mask] == 0).all()
    assert (masked == reference.apply_mask(frame, mask)).all()


@pytest.mark.parametrize(("height", "width"), [(84, 84), (1, 1), (7, 13), (203, 301)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("background", ["colour", "one image", "an image each"])
def test_backgrounds(place: Place, background: str, batch: int, height: int, width: int) -> None:
    random = np.random.default_rng(height)
    frames, others = random.integers(0, 256, (2, batch, height, width, 3), np.uint8)
    masks = random.random((batch, height, width)) < 0.5
    behind = {"colour": others[0, 0, 0], "one image": others[0], "an image each": others}[background]
    masked = run(place, frames, masks, behind)
    assert (masked == reference.apply_mask(frames, masks, behind)).all()
    assert (masked[masks] == frames[masks]).all()


def test_in_place_and_strided() -> None:
    frame, mask = picture(30, 20)
    wanted = reference.apply_mask(frame, mask)
    assert (ops.apply_mask(frame, mask.T.copy().T) == wanted).all()
    assert (ops.apply_mask(frame[::-1], mask[::-1]) == wanted[::-1]).all()
    own = frame.copy()
    assert ops.apply_mask(own, mask, out=own) is own
    assert (own == wanted).all()


def test_bad_input() -> None:
    frame, mask = picture(30, 20)
    with pytest.raises(InputTypeError, match=r"frame must be uint8 of shape \(any, any, 3\), not float32"):
        ops.apply_mask(frame.astype(np.float32), mask)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"mask must be bool of shape \(30, 20\), not bool of shape \(20, 30\)"):
        ops.apply_mask(frame, mask.T)
    with pytest.raises(InputTypeError, match=r"mask must be bool of shape \(30, 20\), not uint8"):
        ops.apply_mask(frame, mask.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"background must be uint8 of shape \(3,\), not uint8 of shape \(4,\)"):
        ops.apply_mask(frame, mask, np.zeros(4, np.uint8))
    with pytest.raises(InputError, match=r"background must be uint8 of shape \(30, 20, 3\)"):
        ops.apply_mask(frame, mask, frame[:4])
    with pytest.raises(InputError, match="out must be aligned, in C order and not read-only"):
        ops.apply_mask(frame, mask, out=np.asfortranarray(frame))
