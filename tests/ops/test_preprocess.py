"""Frames to network inputs, against the official implementations' recorded inputs, Pillow and the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samg_fast import ops
from samg_fast.bundle import NetworkSpec
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from support import paths
from support.devices import Place
from support.slow_walk import network_input
from support.synthetic_bundle import DINO_SPEC as DINO
from support.synthetic_bundle import SAM_SPEC as SAM
from support.synthetic_bundle import picture

GOLDEN = np.load(paths.GOLDEN / "preprocess.npz")

# float32 sums of up to four values of at most 2.7, in another order
TOLERANCE = 2e-6
# Rounding to half precision: half a unit in the last place of values from 2 to 4
HALF_TOLERANCE = 2**-10


def run(place: Place, frames: NDArray[np.uint8], *specs: NetworkSpec, dtype: Any = np.float32) -> list[NDArray[Any]]:
    out = ops.preprocess(place.put(frames), specs, dtype=dtype, device=place.device)
    return [place.get(each) for each in out]


@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("name", ["walker84", "land480x640"])
def test_official_sam_input(place: Place, name: str, side: int) -> None:
    spec, frames = replace(SAM, side=side), GOLDEN[f"{name}.image"][None]
    for out in (run(place, frames, spec)[0], reference.preprocess(frames, spec)):
        assert out.shape == (1, 3, side, side)
        # The uint8 resize is the same, so only the last bit of a division may differ.
        np.testing.assert_allclose(out[0, :, ::37, ::37], GOLDEN[f"sam{side}.{name}"], atol=5e-7)


def test_official_dino_input(place: Place) -> None:
    frames = GOLDEN["dino.image"][None]
    for out in (run(place, frames, DINO)[0], reference.preprocess(frames, DINO)):
        # Values up to 2.6; a few float32 roundings in another order.
        np.testing.assert_allclose(out[0, :, ::37, ::37], GOLDEN["dino448.walker84"], atol=2e-6)


@pytest.mark.parametrize("spec", [replace(SAM, side=64), replace(DINO, side=56), replace(DINO, side=20)])
@pytest.mark.parametrize(("height", "width"), [(84, 84), (30, 50), (64, 64), (50, 31), (1, 1), (200, 190)])
def test_fast_is_the_reference(place: Place, spec: NetworkSpec, height: int, width: int) -> None:
    frames = np.stack([picture(height, width, seed)[0] for seed in range(3)])
    wanted = reference.preprocess(frames, spec)
    np.testing.assert_allclose(run(place, frames, spec)[0], wanted, atol=TOLERANCE)
    np.testing.assert_allclose(wanted[1:2], network_input(frames[1], spec), atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(84, 84), (97, 41), (300, 260), (33, 500), (480, 640), (700, 130)])
@pytest.mark.parametrize("side", [64, 96, 131])
def test_resize_is_pillows_to_the_bit(place: Place, height: int, width: int, side: int) -> None:
    """Columns first, as Pillow always did before 13, with which the official code was run."""
    frame = np.random.default_rng(side).integers(0, 256, (height, width, 3), np.uint8)
    spec = replace(SAM, side=side, mean=(0, 0, 0), std=(1, 1, 1))
    out = np.rint(run(place, frame[None], spec)[0][0] * 255).astype(np.uint8)
    new_height, new_width = (int(length * side / max(height, width) + 0.5) for length in (height, width))
    wide = Image.fromarray(frame).resize((new_width, height), Image.Resampling.BILINEAR)
    wanted = np.asarray(wide.resize((new_width, new_height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(out[:, :new_height, :new_width].transpose(1, 2, 0), wanted)
    assert (out[:, new_height:] == 0).all()
    assert (out[:, :, new_width:] == 0).all()


def test_both_networks_in_one_pass(place: Place) -> None:
    frames = np.stack([picture(30, 50, seed)[0] for seed in range(2)])
    specs = replace(SAM, side=64), replace(DINO, side=56)
    both = run(place, frames, *specs)
    for out, spec in zip(both, specs, strict=True):
        np.testing.assert_array_equal(out, run(place, frames, spec)[0])


@pytest.mark.parametrize("spec", [replace(SAM, side=63), replace(DINO, side=51)])
def test_half_precision(place: Place, spec: NetworkSpec) -> None:
    frames = picture(84, 60)[0][None]
    (out,) = run(place, frames, spec, dtype=np.float16)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.astype(np.float32), reference.preprocess(frames, spec), atol=HALF_TOLERANCE)


def test_out_is_written_whole(place: Place) -> None:
    frames = picture(30, 50)[0][None]
    specs = [replace(SAM, side=64), replace(DINO, side=56)]
    out = [place.put(np.full((1, 3, spec.side, spec.side), 7, np.float32)) for spec in specs]
    returned = ops.preprocess(place.put(frames), specs, out=out, device=place.device)
    for array, given, spec in zip(returned, out, specs, strict=True):
        assert array is given
        np.testing.assert_allclose(place.get(array), reference.preprocess(frames, spec), atol=TOLERANCE)


def test_padding_is_zero() -> None:
    (out,) = ops.preprocess(np.full((1, 30, 60, 3), 255, np.uint8), [replace(SAM, side=64)])
    assert (out[:, :, 32:] == 0).all()
    assert (out[:, :, :32] > 0).all()


def test_strided_frames() -> None:
    big = np.random.default_rng(0).integers(0, 255, (2, 60, 60, 3), np.uint8)
    view = big[:, ::2, ::-1]
    specs = replace(SAM, side=64), replace(DINO, side=56)
    for strided, dense in zip(ops.preprocess(view, specs), ops.preprocess(view.copy(), specs), strict=True):
        assert (strided == dense).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads: int) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 84, 84, 3), np.uint8)
    wanted = ops.preprocess(frames, [SAM, DINO])
    for out, expected in zip(ops.preprocess(frames, [SAM, DINO], device=Cpu(threads)), wanted, strict=True):
        assert (out == expected).all()


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (np.zeros((84, 84, 3), np.uint8), InputError),
        (np.zeros((1, 84, 84), np.uint8), InputError),
        (np.zeros((1, 84, 84, 4), np.uint8), InputError),
        (np.zeros((1, 0, 84, 3), np.uint8), InputError),
        (np.zeros((0, 84, 84, 3), np.uint8), InputError),
        (np.zeros((1, 84, 84, 3), np.float32), InputTypeError),
        ([[[[1, 2, 3]]]], InputTypeError),
    ],
)
def test_bad_frames(frames: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"frames must"):
        ops.preprocess(frames, [SAM])  # type: ignore[arg-type]


def test_bad_out() -> None:
    frames, small = np.zeros((1, 8, 8, 3), np.uint8), replace(SAM, side=64)
    good = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(InputError, match=r"out must be float32 or float16 of shape \(1, 3, 512, 512\), not float32"):
        ops.preprocess(frames, [SAM], out=[good])
    with pytest.raises(InputTypeError, match=r"out\[1\] must be float32 or float16 of shape .*, not float64"):
        ops.preprocess(frames, [small, small], out=[good, good.astype(np.float64)])
    with pytest.raises(InputError, match="out must be aligned, in C order and not read-only"):
        ops.preprocess(frames, [small], out=[np.asfortranarray(good)])
    with pytest.raises(InputError, match="out must be a list of 2 arrays, one for each network, not list"):
        ops.preprocess(frames, [small, small], out=[good])
    with pytest.raises(InputError, match=r"dtype must be float32 or float16, not .*float64"):
        ops.preprocess(frames, [small], dtype=np.float64)
    with pytest.raises(InputError, match="specs must be one or two, not 0"):
        ops.preprocess(frames, [])
