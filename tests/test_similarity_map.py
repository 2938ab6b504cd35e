"""Similarity maps: fast against definition, and what the definition means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samg_fast import ops, reference
from samg_fast.errors import InputError, InputTypeError

# Cosines are at most 1 and float32 sums over up to 40 channels are good to a few 1e-7.
TOLERANCE = 2e-6


def made(parts: int, c1: int, c2: int, g1: int, g2: int) -> tuple[Any, ...]:
    random = np.random.default_rng(parts + g1)

    def noise(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    features = reference.unit(noise(parts, c1), 1), reference.unit(noise(parts, c2), 1)
    return *features, noise(c1, g1, g1), noise(c2, g2, g2)


@pytest.mark.parametrize(("height", "width"), [(84, 84), (20, 33), (97, 41), (1, 1)])
@pytest.mark.parametrize("shape", [(1, 8, 5, 16, 16), (3, 8, 11, 16, 4), (4, 40, 6, 5, 7)])
@pytest.mark.parametrize("prompt_side", [64, 150])
def test_fast_is_the_reference(shape: tuple[int, ...], prompt_side: int, height: int, width: int) -> None:
    arrays = made(*shape)
    size: dict[str, Any] = {"prompt_side": prompt_side, "height": height, "width": width}
    wanted = reference.similarity_map(*arrays, **size)
    got = ops.similarity_map(*arrays, **size)
    assert got.shape == (shape[0], height, width)
    assert got.dtype == wanted.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


def test_a_cell_is_like_itself() -> None:
    sam_features, dino_features, sam_map, dino_map = made(1, 8, 5, 6, 6)
    sam_map[:, 2, 3], dino_map[:, 2, 3] = sam_features[0] * 7, dino_features[0] * 0.1
    out = ops.similarity_map(
        sam_features, dino_features, sam_map, dino_map, prompt_side=24 * 7, height=6 * 7, width=6 * 7
    )
    assert out.max() <= 1 + TOLERANCE
    y, x = np.unravel_index(out[0].argmax(), out[0].shape)
    assert (y // 7, x // 7) == (2, 3)


def test_zero_cells_have_no_similarity() -> None:
    arrays = made(2, 8, 5, 6, 6)
    arrays[2][:], arrays[3][:] = 0, 0
    assert (ops.similarity_map(*arrays, prompt_side=24, height=9, width=9) == 0).all()


def test_strided_maps() -> None:
    arrays = list(made(2, 8, 8, 6, 6))
    wanted = ops.similarity_map(*arrays, prompt_side=24, height=9, width=9)
    arrays[2] = np.asfortranarray(arrays[2])
    arrays[3] = np.repeat(arrays[3], 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(ops.similarity_map(*arrays, prompt_side=24, height=9, width=9), wanted)


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, np.ones((2, 8)), InputTypeError, "sam_features must be float32"),
        (0, np.ones(8, np.float32), InputError, "sam_features must be"),
        (1, np.ones((3, 5), np.float32), InputError, r"dino_features must be float32 of shape \(2, any\)"),
        (2, np.ones((7, 6, 6), np.float32), InputError, r"sam_map must be float32 of shape \(8, any, any\)"),
        (2, np.ones((8, 6, 5), np.float32), InputError, r"sam_map must be float32 of shape \(8, 6, 6\)"),
        (3, np.ones((5, 6, 5), np.float32), InputError, r"dino_map must be float32 of shape \(5, 6, 6\)"),
        (3, None, InputTypeError, "dino_map must be a float32 array, not None"),
    ],
)
def test_bad_input(index: int, value: Any, error: type[Exception], message: str) -> None:
    arrays = list(made(2, 8, 5, 6, 6))
    arrays[index] = value
    with pytest.raises(error, match=message):
        ops.similarity_map(*arrays, prompt_side=24, height=9, width=9)
