"""The run-length encoding is pycocotools', to the byte."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast.shapes import encode

coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")


def masks() -> list[NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    noise = [rng.random(size) < share for size in ((7, 5), (84, 84), (201, 333)) for share in (0.02, 0.5, 0.97)]
    far = np.zeros((2000, 3000), np.bool_)
    far[-1, -1] = True  # runs of more than 20 bits, and differences below 0
    far[5:9, 4:2000] = True
    plain = [np.zeros((6, 4), np.bool_), np.ones((6, 4), np.bool_), np.ones((1, 1), np.bool_), far]
    return [*noise, *plain, np.asfortranarray(noise[1]), noise[2][::-1, ::2]]


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_equals_pycocotools(mask: NDArray[np.bool_]) -> None:
    rle = encode(mask)
    theirs = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert rle["counts"].encode() == theirs["counts"]
    assert rle["size"] == theirs["size"]
    np.testing.assert_array_equal(coco.decode(rle), mask)
