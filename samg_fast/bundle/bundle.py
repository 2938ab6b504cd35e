"""A bundle on disk: the networks of one configuration, verified against the SHA-256 values of its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from samg_fast.bundle.manifest import MANIFEST, FileSpec, FittedManifest, Manifest, PromptedManifest, Role
from samg_fast.errors import BundleError, FileError

__all__ = ["Bundle", "sha256_of"]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match its manifest.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    manifest : Manifest
        The content of its `manifest.json`.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle's manifest and verify the SHA-256 of every file.

        Parameters
        ----------
        path : str or os.PathLike
            The bundle's folder.

        Raises
        ------
        BundleError
            The folder, its manifest or a file is missing, truncated, altered or invalid.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise BundleError(f"bundle {folder} is not a folder")
        try:
            manifest = Manifest.from_dict(json.loads((folder / MANIFEST).read_bytes()))
        except FileNotFoundError:
            raise BundleError(f"bundle {folder} has no {MANIFEST}") from None
        # JSON and UTF-8 errors are ValueErrors, and so is BundleError; deeply nested brackets raise RecursionError.
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"bundle {folder}: {MANIFEST} cannot be read: {error}") from error
        bundle = cls(folder, manifest)
        files = {bundle.file(role, precision) for role in manifest.roles for precision in manifest.precisions}
        for spec in sorted(files, key=lambda spec: spec.file):
            _verify(folder / spec.file, spec.sha256, f"bundle {manifest.name}")
            if spec.data is not None and spec.data_sha256 is not None:
                _verify(folder / spec.data, spec.data_sha256, f"bundle {manifest.name}")
        return bundle

    @property
    def name(self) -> str:
        """The bundle's name, as stated in its manifest."""
        return self.manifest.name

    @property
    def prompted(self) -> PromptedManifest:
        """The manifest of a bundle that is shown what to cut out.

        Raises
        ------
        BundleError
            The bundle is fitted to one target.
        """
        if not isinstance(self.manifest, PromptedManifest):
            raise BundleError(
                f"bundle {self.name} is fitted to one target: it finds that one without being shown it, and no other"
            )
        return self.manifest

    @property
    def fitted(self) -> FittedManifest | None:
        """The manifest of a bundle that is fitted to one target; None of one that is shown what to cut out."""
        return self.manifest if isinstance(self.manifest, FittedManifest) else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that determines features and masks: the default networks, and how frames are prepared.

        Renaming a bundle or adding a precision does not change it, so targets stay valid. Other weights change it.
        """
        values = self.manifest.to_dict()
        decisive = {key: values[key] for key in self.manifest.decisive}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def file(self, role: Role, precision: str = "fp32") -> FileSpec:
        """Return the name and SHA-256 of a network's file at a precision."""
        spec = self.manifest.file(role, precision)
        return FileSpec(file=spec.file, sha256=spec.sha256, data=spec.data, data_sha256=spec.data_sha256)

    def onnx_path(self, role: Role, precision: str = "fp32") -> Path:
        """Return the path of a network's ONNX file at a precision, with its weights beside it if it has such a file.

        Where one of the two is a symbolic link, as in a hub's cache or a mounted volume, they are put together in a
        temporary folder that lasts as long as this object: runtimes refuse weights that lie elsewhere than their graph.

        Raises
        ------
        FileError
            They cannot be put together.
        """
        spec = self.file(role, precision)
        path = self.path / spec.file
        if spec.data is None or not (path.is_symlink() or (self.path / spec.data).is_symlink()):
            return path
        for name in (spec.file, spec.data):
            _bring(self.path / name, self._beside / name)
        return self._beside / spec.file

    @property
    def _beside(self) -> Path:
        return Path(self._temporary.name)

    @cached_property
    def _temporary(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="samg-fast-")


def _bring(source: Path, path: Path) -> None:
    """Link to what a symbolic link stands for, or copy it where a link cannot be made."""
    if path.exists():
        return
    try:
        try:
            os.link(source.resolve(), path)
        except OSError:  # another disk, or another user's file
            shutil.copyfile(source, path)
    except OSError as error:
        raise FileError(f"cannot put {source} beside its graph in {path.parent}: {error.strerror or error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _verify(path: Path, sha256: str, whose: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise BundleError(f"{whose}: file {path} cannot be read: {error.strerror or error}") from error
    if found != sha256:
        raise BundleError(f"{whose}: file {path} is truncated or altered: its SHA-256 is {found}, expected {sha256}")
