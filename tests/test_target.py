"""Targets and their files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from samg_fast import Target
from samg_fast.errors import BundleError, FileError, InputError, InputTypeError


@pytest.fixture
def target() -> Target:
    """Make a target with two parts."""
    random = np.random.default_rng(0)

    def noise(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    return Target(
        sam=noise(8),
        dino=noise(11),
        parts_sam=noise(2, 8),
        parts_dino=noise(2, 11),
        mask_weights=noise(3),
        part_is_point=np.array([False, True]),
        bundle="synthetic",
        fingerprint="f" * 64,
    )


ARRAYS = ("sam", "dino", "parts_sam", "parts_dino", "mask_weights", "part_is_point")


def test_round_trip(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "walker.safetensors"
    target.save(path)
    again = Target.load(str(path))
    for name in ARRAYS:
        assert (getattr(again, name) == getattr(target, name)).all()
        assert getattr(again, name).dtype == getattr(target, name).dtype
    assert (again.bundle, again.fingerprint, again.parts) == ("synthetic", "f" * 64, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["walker.safetensors"]


def test_without_parts(target: Target, tmp_path: Path) -> None:
    bare = replace(
        target, parts_sam=target.parts_sam[:0], parts_dino=target.parts_dino[:0], part_is_point=np.zeros(0, bool)
    )
    bare.save(tmp_path / "t.safetensors")
    assert Target.load(tmp_path / "t.safetensors").parts_dino.shape == (0, 11)


def test_stacked_features(target: Target) -> None:
    assert (target.all_sam == np.concatenate([target.sam[None], target.parts_sam])).all()
    assert (target.all_dino[1:] == target.parts_dino).all()


def test_is_frozen_and_a_copy(target: Target) -> None:
    weights = np.array([0.2, 0.3, 0.5], np.float32)
    other = replace(target, mask_weights=weights)
    weights[:] = 0
    assert other.mask_weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="read-only"):
        other.sam[0] = 1
    with pytest.raises(AttributeError):
        other.bundle = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sam": np.full(8, np.nan, np.float32)}, InputError, "sam holds NaN or infinity"),
        ({"mask_weights": np.array([1, np.inf, 0], np.float32)}, InputError, "mask_weights holds NaN"),
        ({"mask_weights": np.ones(3)}, InputTypeError, r"mask_weights must be float32 of shape \(3,\), not float64"),
        ({"parts_sam": np.ones((3, 8), np.float32)}, InputError, r"parts_sam must be float32 of shape \(2, 8\)"),
        ({"parts_dino": np.ones((2, 8), np.float32)}, InputError, r"parts_dino must be .*\(2, 11\)"),
        ({"part_is_point": np.ones(2)}, InputTypeError, r"part_is_point must be a \(K,\) bool array"),
        ({"part_is_point": [False, True]}, InputTypeError, r"part_is_point must be a \(K,\) bool array, not list"),
        ({"dino": [1.0, 2.0]}, InputTypeError, "dino must be a float32 array, not list"),
    ],
)
def test_bad_arrays(target: Target, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(target, **changes)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"target .*t\.safetensors cannot be read"):
        Target.load(tmp_path / "t.safetensors")


def test_unwritable(target: Target, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        target.save(tmp_path / "nowhere" / "t.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated(target: Target, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.safetensors"
    target.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match="cannot be read: it is missing, truncated or no target"):
        Target.load(path)


def test_altered_number(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    target.save(path)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # within the tensors, which lie at the end
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is altered: its content does not match its SHA-256"):
        Target.load(path)


def test_altered_bundle(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    target.save(path)
    path.write_bytes(path.read_bytes().replace(b'"synthetic"', b'"synthetix"'))
    with pytest.raises(BundleError, match="is altered"):
        Target.load(path)


def test_other_safetensors(tmp_path: Path) -> None:
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(BundleError, match="has format None, expected 'samg-fast target 1'"):
        Target.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_types_that_numpy_does_not_know(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.safetensors"
    header = json.dumps({"sam": {"dtype": dtype, "shape": [4], "data_offsets": [0, 8 if dtype == "BF16" else 4]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8 if dtype == "BF16" else 4))
    with pytest.raises(BundleError, match=r"target .*x\.safetensors"):
        Target.load(path)


def test_tensor_missing(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    target.save(path)
    tensors = load_file(path)
    del tensors["sam"]
    save_file(tensors, path, {"format": "samg-fast target 1", "bundle": "b", "fingerprint": "f", "sha256": "0"})
    with pytest.raises(BundleError, match="is altered: it holds"):
        Target.load(path)
