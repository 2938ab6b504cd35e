"""Similarity maps: fast against definition, and what the definition means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support.devices import Place

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
def test_fast_is_the_reference(place: Place, shape: tuple[int, ...], prompt_side: int, height: int, width: int) -> None:
    arrays = made(*shape)
    size: dict[str, Any] = {"prompt_side": prompt_side, "height": height, "width": width}
    wanted = reference.similarity_map(*arrays, **size)
    got = run(place, arrays, **size)
    assert got.shape == (shape[0], height, width)
    assert got.dtype == wanted.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 1, 1, 1),
        (9, 5, 6, 6, 2),
        (64, 6, 7, 9, 3),
        (17, 33, 70, 24, 24),
        (2, 4, 4, 3, 8),
        (5, 40, 50, 33, 1),
        (3, 10, 9, 8, 5),
    ],
)
def test_odd_sizes(place: Place, shape: tuple[int, ...]) -> None:
    """Chunks of features, channels that are no multiple of four, grids that shrink, of one cell, or equal."""
    arrays = made(*shape)
    size = {"prompt_side": 50, "height": 21, "width": 13}
    np.testing.assert_allclose(run(place, arrays, **size), reference.similarity_map(*arrays, **size), atol=TOLERANCE)


def test_official_sizes(place: Place) -> None:
    """EfficientViT-SAM's and DINOv2's grids: more cells than one pass of a grid of blocks."""
    arrays = made(4, 256, 384, 64, 32)
    size = {"prompt_side": 1024, "height": 84, "width": 84}
    np.testing.assert_allclose(run(place, arrays, **size), reference.similarity_map(*arrays, **size), atol=TOLERANCE)


@pytest.mark.parametrize("shared", [True, False])
def test_batches(place: Place, shared: bool) -> None:
    frames = [made(3, 8, 11, 16, 4), made(3, 8, 11, 16, 4)[::1]]
    frames[1] = tuple(np.roll(each, 3, axis=-1) for each in frames[1])
    size = {"prompt_side": 64, "height": 20, "width": 33}
    features = [frames[0][i] if shared else np.stack([each[i] for each in frames]) for i in (0, 1)]
    maps = [np.stack([each[i] for each in frames]) for i in (2, 3)]
    got = run(place, (*features, *maps), **size)
    for index, each in enumerate(frames):
        own = frames[0][:2] if shared else each[:2]
        np.testing.assert_allclose(got[index], reference.similarity_map(*own, *each[2:], **size), atol=TOLERANCE)


def test_half_precision_maps(place: Place) -> None:
    """Half precision maps are read exactly: the reference of the rounded maps is met as closely as ever."""
    arrays = list(made(3, 10, 11, 12, 5))
    size = {"prompt_side": 64, "height": 20, "width": 33}
    arrays[2:] = [each.astype(np.float16) for each in arrays[2:]]
    wanted = reference.similarity_map(*arrays[:2], *(each.astype(np.float32) for each in arrays[2:]), **size)
    np.testing.assert_allclose(run(place, arrays, **size), wanted, atol=TOLERANCE)
    mixed = [*arrays[:3], arrays[3].astype(np.float32)]
    np.testing.assert_allclose(run(place, mixed, **size), wanted, atol=TOLERANCE)


def test_neighbours_that_cancel_out(place: Place) -> None:
    """Where lifted cells nearly vanish, squared norms from products would be rounding errors only."""
    arrays = list(made(3, 8, 16, 16, 8))
    arrays[3][:, :, 1::2] = -3.1 * arrays[3][:, :, ::2]  # 3/4 of a cell and 1/4 of the next sum to a fortieth
    size = {"prompt_side": 64, "height": 40, "width": 33}
    # The reference too rounds values that are forty times as large as their sum
    np.testing.assert_allclose(run(place, arrays, **size), reference.similarity_map(*arrays, **size), atol=2e-5)


def test_one_bad_cell_spoils_its_neighbours_only(place: Place) -> None:
    arrays = list(made(2, 8, 11, 16, 8))
    size = {"prompt_side": 64, "height": 16, "width": 16}
    wanted = run(place, arrays, **size)
    arrays[3][0, 3, 7] = np.nan  # the last of its row, next to the first of the next row in memory
    got = run(place, arrays, **size)
    clean = ~np.isnan(got)
    assert np.isnan(got[:, 7, 14]).all()
    assert clean[:, :4].all()
    assert clean[:, :, :10].all()
    np.testing.assert_array_equal(got[clean], wanted[clean])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads: int) -> None:
    arrays = made(4, 256, 384, 64, 32)
    size: dict[str, Any] = {"prompt_side": 1024, "height": 84, "width": 84}
    maps = [np.stack([each, each]) for each in arrays[2:]]
    one = ops.similarity_map(*arrays, **size, device=Cpu(1))
    assert (ops.similarity_map(*arrays, **size, device=Cpu(threads)) == one).all()
    assert (ops.similarity_map(*arrays[:2], *maps, **size, device=Cpu(threads)) == one).all()


def run(place: Place, arrays: Sequence[Any], **size: Any) -> NDArray[Any]:
    return place.get(ops.similarity_map(*map(place.put, arrays), **size, device=place.device))


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
        (1, np.ones((3, 5), np.float32), InputError, r"dino_features must be float32 of shape \(2, 5\)"),
        (2, np.ones((7, 6, 6), np.float32), InputError, r"sam_features must be float32 of shape \(any, 7\)"),
        (2, np.ones((8, 6, 5), np.float32), InputError, r"sam_map must be float32 or float16 of shape \(any, 6, 6\)"),
        (3, np.ones((5, 6, 5), np.float32), InputError, r"dino_map must be float32 or float16 of shape \(any, 6, 6\)"),
        (3, np.ones((5, 0, 0), np.float32), InputError, "dino_map must have at least one value"),
        (3, None, InputTypeError, "dino_map must be float32 or float16 of shape .*, not None"),
    ],
)
def test_bad_input(index: int, value: Any, error: type[Exception], message: str) -> None:
    arrays = list(made(2, 8, 5, 6, 6))
    arrays[index] = value
    with pytest.raises(error, match=message):
        ops.similarity_map(*arrays, prompt_side=24, height=9, width=9)


def test_too_many_features() -> None:
    with pytest.raises(InputError, match="sam_features must be from 1 to 64 features, not 65"):
        ops.similarity_map(*made(65, 8, 5, 6, 6), prompt_side=24, height=9, width=9)
    with pytest.raises(InputError, match="sam_features must be from 1 to 64 features, not 0"):
        ops.similarity_map(*made(0, 8, 5, 6, 6), prompt_side=24, height=9, width=9)


def test_out() -> None:
    arrays = made(2, 8, 5, 6, 6)
    size: dict[str, Any] = {"prompt_side": 24, "height": 9, "width": 7}
    out = np.empty((2, 9, 7), np.float32)
    assert ops.similarity_map(*arrays, **size, out=out) is out
    assert (out == ops.similarity_map(*arrays, **size)).all()
    with pytest.raises(InputError, match=r"out must be float32 of shape \(2, 9, 7\), not float32 of shape \(2, 7, 9\)"):
        ops.similarity_map(*arrays, **size, out=np.empty((2, 7, 9), np.float32))
