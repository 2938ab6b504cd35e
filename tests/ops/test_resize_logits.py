"""Logits to one mask at the frame's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from samg_fast.ops.reference import ResizedLogits
from support.devices import Place
from support.slow_walk import to_frame

# Logits up to 40, float32.
TOLERANCE = 2e-5


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * 10).astype(np.float32)


def run(place: Place, low_res: NDArray[Any], **options: Any) -> ResizedLogits:
    arrays = {name: place.put(each) if isinstance(each, np.ndarray) else each for name, each in options.items()}
    out = ops.resize_logits(place.put(low_res), **arrays, device=place.device)
    return ResizedLogits(*map(place.get, out))


def check(got: ResizedLogits, wanted: ResizedLogits) -> None:
    np.testing.assert_allclose(got.settled, wanted.settled, atol=TOLERANCE)
    np.testing.assert_allclose(got.logits, wanted.logits, atol=TOLERANCE)
    np.testing.assert_array_equal(got.chosen, wanted.chosen)
    # Mask, area and box are compared with the kernel's own logits, as a logit near 0 may be on either side of it
    np.testing.assert_array_equal(got.mask, got.logits > 0)
    np.testing.assert_array_equal(got.area, got.mask.sum(axis=(1, 2)))
    assert got.box.tolist() == [list(reference.mask_box(mask)) for mask in got.mask]
    for array, expected in zip(got, wanted, strict=True):
        assert array.shape == expected.shape
        assert array.dtype == expected.dtype


@pytest.mark.parametrize(("height", "width"), [(84, 84), (20, 33), (33, 20), (1, 1), (130, 64)])
@pytest.mark.parametrize(("side", "prompt_side"), [(64, 64), (32, 100), (64, 40)])
@pytest.mark.parametrize("masks", [1, 3])
@pytest.mark.parametrize("choice", ["weights", "iou"])
def test_fast_is_the_reference(
    place: Place, choice: str, masks: int, side: int, prompt_side: int, height: int, width: int
) -> None:
    logits = noise(2, masks, side, side, seed=side)
    options = {choice: noise(2, masks) / 20, "prompt_side": prompt_side, "height": height, "width": width}
    wanted = reference.resize_logits(logits, **options)
    check(run(place, logits, **options), wanted)
    np.testing.assert_allclose(
        wanted.logits[0], to_frame(wanted.settled[0], [prompt_side], height, width), atol=TOLERANCE
    )


def test_official_sizes(place: Place) -> None:
    """More logits than one pass of a grid of blocks; the decoder's first mask, of four, is left out."""
    decoder_output = noise(2, 4, 256, 256)
    options = {"prompt_side": 1024, "height": 84, "width": 84}
    for choice in ({"weights": noise(2, 3) / 10}, {"iou": noise(2, 4)[:, 1:]}):
        wanted = reference.resize_logits(decoder_output[:, 1:], **choice, **options)
        check(run(place, decoder_output[:, 1:], **choice, **options), wanted)


def test_half_precision(place: Place) -> None:
    """Half precision logits are read exactly."""
    logits = noise(1, 3, 32, 32).astype(np.float16)
    options = {"prompt_side": 64, "height": 20, "width": 31}
    for choice in ({"weights": np.full((1, 3), 0.3, np.float32)}, {"iou": np.array([[0.1, 0.5, 0.2]], np.float32)}):
        wanted = reference.resize_logits(logits.astype(np.float32), **choice, **options)
        check(run(place, logits, **choice, **options), wanted)


def test_same_size_is_the_same(place: Place) -> None:
    logits = noise(1, 1, 32, 32)
    out = run(place, logits, weights=np.ones((1, 1), np.float32), prompt_side=32, height=32, width=32)
    np.testing.assert_array_equal(out.logits[0], logits[0, 0])
    np.testing.assert_array_equal(out.settled[0], logits[0, 0])


def test_padding_is_cropped(place: Place) -> None:
    """Logits of the padding do not reach the frame."""
    logits = np.full((1, 1, 32, 32), -5, np.float32)
    logits[:, :, 16:] = 100
    out = run(place, logits, weights=np.ones((1, 1), np.float32), prompt_side=32, height=10, width=20)
    np.testing.assert_allclose(out.logits, -5, atol=1e-5)
    assert not out.mask.any()
    assert out.area.tolist() == [0]
    assert out.box.tolist() == [[1, 1, 19, 9]]  # of an empty mask, as in the official code


@pytest.mark.parametrize(
    ("iou", "best"),
    [
        ([0.1, 0.9, 0.9], 1),
        ([0.9, 0.1, 0.2], 0),
        ([np.nan, 0.1, 0.2], 2),
        ([np.nan, np.nan, np.nan], 0),
        ([-np.inf, np.nan, -np.inf], 0),
        ([-3, -2, -1], 2),
        ([np.nan, -np.inf, -5], 2),
    ],
)
def test_best_of_three(place: Place, iou: list[float], best: int) -> None:
    logits = noise(1, 3, 16, 16)
    options = {"iou": np.array([iou], np.float32), "prompt_side": 32, "height": 9, "width": 9}
    out = run(place, logits, **options)
    assert out.chosen.tolist() == reference.resize_logits(logits, **options).chosen.tolist() == [best]
    np.testing.assert_array_equal(out.settled[0], logits[0, best])


@pytest.mark.parametrize("pixel", [(0, 0), (0, 8), (8, 0), (8, 8), (4, 5)])
def test_box_of_one_pixel(place: Place, pixel: tuple[int, int]) -> None:
    logits = np.full((2, 1, 9, 9), -1, np.float32)
    logits[1, 0, pixel[0], pixel[1]] = 1
    out = run(place, logits, weights=np.ones((2, 1), np.float32), prompt_side=9, height=9, width=9)
    y, x = pixel
    assert out.box.tolist() == [[1, 1, 8, 8], [x, y, x, y]]
    assert out.area.tolist() == [0, 1]


def test_again_and_again(place: Place) -> None:
    """One call leaves nothing in the workspace that changes the next."""
    full, empty = np.full((3, 1, 16, 16), 1, np.float32), np.full((3, 1, 16, 16), -1, np.float32)
    options = {"weights": np.ones((3, 1), np.float32), "prompt_side": 16, "height": 40, "width": 16}
    for _ in range(3):
        assert run(place, full, **options).area.tolist() == [640] * 3
        out = run(place, empty, **options)
        assert out.area.tolist() == [0] * 3
        assert out.box.tolist() == [[1, 1, 15, 39]] * 3
        ops.topk_points(place.put(noise(3, 200, 200)), 9, True, device=place.device)  # uses the same workspace


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads: int) -> None:
    logits, weights = noise(7, 3, 256, 256), noise(7, 3)
    size: dict[str, Any] = {"prompt_side": 1024, "height": 84, "width": 84}
    for got, wanted in zip(
        ops.resize_logits(logits, weights=weights, **size, device=Cpu(threads)),
        ops.resize_logits(logits, weights=weights, **size, device=Cpu(1)),
        strict=True,
    ):
        assert (got == wanted).all()


def test_into_given_arrays(place: Place) -> None:
    """Maps that are None are not written, and predicted IoUs may be a part of a larger array."""
    low_res, iou = noise(2, 3, 16, 16), noise(2, 4)
    size: dict[str, Any] = {"prompt_side": 20, "height": 9, "width": 7}
    wanted = reference.resize_logits(low_res, iou=iou[:, 1:], **size)
    out = ResizedLogits(
        settled=place.put(np.full((2, 16, 16), 7, np.float32)),
        logits=None,  # type: ignore[arg-type]
        mask=place.put(np.ones((2, 9, 7), np.bool_)),
        area=place.put(np.full(2, 7, np.int32)),
        box=place.put(np.full((2, 4), 7, np.int32)),
        chosen=place.put(np.full(2, 7, np.int32)),
    )
    found = ops.resize_logits(place.put(low_res), iou=place.put(iou)[:, 1:], **size, out=out, device=place.device)
    assert found.logits is None
    for name in ("settled", "mask", "area", "box", "chosen"):
        np.testing.assert_array_equal(place.get(getattr(out, name)), getattr(wanted, name))
        assert getattr(found, name) is getattr(out, name)


def test_bad_out() -> None:
    low_res, size = noise(1, 3, 8, 8), {"prompt_side": 8, "height": 5, "width": 6}
    good = ops.resize_logits(low_res, iou=noise(1, 3), **size)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="out must be a ResizedLogits, not tuple"):
        ops.resize_logits(low_res, iou=noise(1, 3), **size, out=tuple(good))  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"out.mask must be bool of shape \(1, 5, 6\), not None"):
        ops.resize_logits(low_res, iou=noise(1, 3), **size, out=good._replace(mask=None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"out.area must be int32 of shape \(1,\), not int32 of shape \(2,\)"):
        ops.resize_logits(low_res, iou=noise(1, 3), **size, out=good._replace(area=np.zeros(2, np.int32)))  # type: ignore[arg-type]


def test_bad_input() -> None:
    size: dict[str, Any] = {"prompt_side": 32, "height": 8, "width": 8}
    weights, logits = np.ones((1, 3), np.float32), np.ones((1, 3, 32, 32), np.float32)
    with pytest.raises(InputTypeError, match="low_res must be float32 or float16 of shape"):
        ops.resize_logits(logits.astype(np.float64), weights=weights, **size)
    with pytest.raises(InputError, match=r"low_res must be float32 or float16 of shape \(any, any, 32, 32\)"):
        ops.resize_logits(logits[..., :30], weights=weights, **size)
    with pytest.raises(InputError, match=r"low_res must be .* not float32 of shape"):
        ops.resize_logits(logits[0], weights=weights, **size)
    with pytest.raises(InputError, match="low_res must have at least one value"):
        ops.resize_logits(logits[:0], weights=weights[:0], **size)
    with pytest.raises(InputError, match=r"weights must be float32 of shape \(1, 3\), not float32 of shape \(1, 2\)"):
        ops.resize_logits(logits, weights=weights[:, :2], **size)
    with pytest.raises(InputTypeError, match=r"iou must be float32 of shape \(1, 3\), not float64"):
        ops.resize_logits(logits, iou=weights.astype(np.float64), **size)
    for both in ({}, {"weights": weights, "iou": weights}):
        with pytest.raises(InputError, match="either weights or iou must be given, and not both"):
            ops.resize_logits(logits, **both, **size)
