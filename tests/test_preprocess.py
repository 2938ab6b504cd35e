"""Frames to network inputs, against the official implementations' recorded inputs and the definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from slow_walk import network_input
from synthetic_bundle import DINO_MEAN, DINO_STD, SAM_MEAN, SAM_STD, picture

from samg_fast import ops, reference
from samg_fast.bundle import NetworkSpec
from samg_fast.errors import InputError, InputTypeError

GOLDEN = np.load(Path(__file__).parent / "golden" / "preprocess.npz")
SAM = NetworkSpec(
    file="e.onnx",
    sha256="0" * 64,
    output="embedding",
    side=512,
    grid=64,
    channels=256,
    mean=SAM_MEAN,
    std=SAM_STD,
    resize="uint8",
)
DINO = replace(SAM, output="features", side=448, grid=32, channels=384, mean=DINO_MEAN, std=DINO_STD, resize="float")


@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("name", ["walker84", "land480x640"])
@pytest.mark.parametrize("module", [reference, ops])
def test_official_sam_input(module: object, name: str, side: int) -> None:
    out = module.preprocess(GOLDEN[f"{name}.image"][None], replace(SAM, side=side))  # type: ignore[attr-defined]
    assert out.shape == (1, 3, side, side)
    # The uint8 resize is the same one, so all that may differ is the last bit of a division.
    np.testing.assert_allclose(out[0, :, ::37, ::37], GOLDEN[f"sam{side}.{name}"], atol=5e-7)


@pytest.mark.parametrize("module", [reference, ops])
def test_official_dino_input(module: object) -> None:
    out = module.preprocess(GOLDEN["dino.image"][None], DINO)  # type: ignore[attr-defined]
    # Values up to 2.6; a few float32 roundings in another order.
    np.testing.assert_allclose(out[0, :, ::37, ::37], GOLDEN["dino448.walker84"], atol=2e-6)


@pytest.mark.parametrize("spec", [replace(SAM, side=64), replace(DINO, side=56), replace(DINO, side=20)])
@pytest.mark.parametrize(("height", "width"), [(84, 84), (30, 50), (64, 64), (50, 31), (1, 1)])
def test_fast_is_the_reference(spec: NetworkSpec, height: int, width: int) -> None:
    frames = np.stack([picture(height, width, seed)[0] for seed in range(3)])
    wanted = reference.preprocess(frames, spec)
    np.testing.assert_allclose(ops.preprocess(frames, spec), wanted, atol=2e-6)
    out = np.full_like(wanted, 7)
    assert ops.preprocess(frames, spec, out) is out
    np.testing.assert_allclose(out, wanted, atol=2e-6)
    np.testing.assert_allclose(wanted[1:2], network_input(frames[1], spec), atol=2e-6)


def test_padding_is_zero() -> None:
    out = ops.preprocess(np.full((1, 30, 60, 3), 255, np.uint8), replace(SAM, side=64))
    assert (out[:, :, 32:] == 0).all()
    assert (out[:, :, :32] > 0).all()


def test_strided_frames() -> None:
    big = np.random.default_rng(0).integers(0, 255, (2, 60, 60, 3), np.uint8)
    view = big[:, ::2, ::-1]
    for spec in (replace(SAM, side=64), replace(DINO, side=56)):
        assert (ops.preprocess(view, spec) == ops.preprocess(view.copy(), spec)).all()


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (np.zeros((84, 84, 3), np.uint8), InputError),
        (np.zeros((1, 84, 84), np.uint8), InputError),
        (np.zeros((1, 84, 84, 4), np.uint8), InputError),
        (np.zeros((1, 0, 84, 3), np.uint8), InputError),
        (np.zeros((1, 84, 84, 3), np.float32), InputTypeError),
        ([[[[1, 2, 3]]]], InputTypeError),
    ],
)
def test_bad_frames(frames: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"frames must"):
        ops.preprocess(frames, SAM)  # type: ignore[arg-type]


def test_bad_out() -> None:
    with pytest.raises(InputError, match=r"out must be float32 of shape \(1, 3, 512, 512\), not float32"):
        ops.preprocess(np.zeros((1, 8, 8, 3), np.uint8), SAM, np.zeros((1, 3, 64, 64), np.float32))
