"""Targets: point features of what to cut out, identified once per task on a reference image."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from samg_fast.checks import Floats, Mask, check_floats, describe
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.files import write_bytes

__all__ = ["EQUAL_WEIGHTS", "Target"]

_FORMAT = "samg-fast target 1"
_TENSORS = ("sam", "dino", "parts_sam", "parts_dino", "mask_weights", "part_is_point")

EQUAL_WEIGHTS: Floats = np.full(3, 1 / 3, np.float32)
"""Mask weights of a target that has not been adapted."""
EQUAL_WEIGHTS.setflags(write=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What to cut out: point features of a target and its parts, valid for the bundle that made them.

    Created by `Segmenter.identify` and `Segmenter.adapt`. The arrays are copied, and read-only.

    Parameters
    ----------
    sam : (C1,) float32 array
        L2-normalised feature of the target in the embedding, the output of the encoder.
    dino : (C2,) float32 array
        L2-normalised feature of the target in the output of the features network.
    parts_sam : (K, C1) float32 array
    parts_dino : (K, C2) float32 array
        The same features of each part: parts given as masks first, then human points.
    mask_weights : (3,) float32 array
        Weights of the first decode's three masks (PerSAM-F); 1/3 each unless adapted.
    part_is_point : (K,) bool array
        Which parts are human points; `Segmenter.adapt` jitters them.
    bundle : str
        Name of the bundle that made the target.
    fingerprint : str
        That bundle's `Bundle.fingerprint`.

    Raises
    ------
    InputTypeError, InputError
        An array has the wrong dtype or shape, or holds NaN or infinity.
    """

    sam: Floats
    dino: Floats
    parts_sam: Floats
    parts_dino: Floats
    mask_weights: Floats
    part_is_point: Mask
    bundle: str
    fingerprint: str

    def __post_init__(self) -> None:
        points = self.part_is_point
        if not isinstance(points, np.ndarray) or points.dtype != np.bool_ or points.ndim != 1:
            raise InputTypeError(f"part_is_point must be a (K,) bool array, not {describe(points)}")
        parts = len(points)
        sam = check_floats("sam", self.sam, (None,), finite=True)
        dino = check_floats("dino", self.dino, (None,), finite=True)
        check_floats("parts_sam", self.parts_sam, (parts, len(sam)), finite=True)
        check_floats("parts_dino", self.parts_dino, (parts, len(dino)), finite=True)
        check_floats("mask_weights", self.mask_weights, (3,), finite=True)
        for name in _TENSORS:
            array = np.array(getattr(self, name), order="C")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def parts(self) -> int:
        """Number of parts, K."""
        return len(self.part_is_point)

    @cached_property
    def all_sam(self) -> Floats:
        """`sam` and `parts_sam` in one array, (1 + K, C1) float32."""
        return np.concatenate((self.sam[None], self.parts_sam))

    @cached_property
    def all_dino(self) -> Floats:
        """`dino` and `parts_dino` in one array, (1 + K, C2) float32."""
        return np.concatenate((self.dino[None], self.parts_dino))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the target is, 64 hexadecimal digits; its file has the same."""
        return _checksum({name: getattr(self, name) for name in _TENSORS}, self._metadata)

    @property
    def _metadata(self) -> dict[str, str]:
        return {"format": _FORMAT, "bundle": self.bundle, "fingerprint": self.fingerprint}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the target as a safetensors file, whole or not at all.

        Raises
        ------
        FileError
            The file cannot be written there.
        """
        tensors = {name: getattr(self, name) for name in _TENSORS}
        write_bytes(path, save(tensors, {**self._metadata, "sha256": self.digest}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Target:
        """Read a target from a safetensors file.

        Raises
        ------
        BundleError
            The file is missing, truncated, altered or not a target.
        """
        try:
            with safe_open(Path(path), framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        # TypeError and AttributeError: NumPy lacks some of safetensors' types, bfloat16 and float8.
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(
                f"target {path} cannot be read: it is missing, truncated or no target file ({error})"
            ) from error
        found = metadata.pop("format", None)
        if found != _FORMAT:
            raise BundleError(f"target {path} has format {found!r}, expected {_FORMAT!r}")
        checksum = metadata.pop("sha256", "")
        if set(tensors) != set(_TENSORS) or set(metadata) != {"bundle", "fingerprint"}:
            raise BundleError(f"target {path} is altered: it holds {sorted(tensors)}, expected {sorted(_TENSORS)}")
        if _checksum(tensors, {"format": _FORMAT, **metadata}) != checksum:
            raise BundleError(f"target {path} is altered: its content does not match its SHA-256")
        try:
            return cls(**tensors, **metadata)
        except (InputError, InputTypeError) as error:
            raise BundleError(f"target {path} is no target: {error}") from error


def _checksum(tensors: dict[str, NDArray[Any]], metadata: dict[str, str]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes; safetensors itself does not detect a changed byte."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in _TENSORS:
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
