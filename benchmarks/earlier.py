"""The first ``tiny``, of version 0.1.0, to compare with: out of this repository's history, into the cache."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from samg_fast.errors import InputError
from samg_fast.files import cache_folder, replacing

__all__ = ["EARLIER_TINY", "earlier_tiny"]

EARLIER_TINY = "tiny-0.1.0"
"""What benchmarks call it."""

_ENCODER = "5ac65795f06cad1a98d2e0e21ecaba3610776effabcc61a86ffbeaefff82b103"  # SHA-256, which names the weights
_FOLDER = "samg_fast/bundle/tiny"
_FILES = ("encoder.onnx", "decoder.onnx", "manifest.json")


def earlier_tiny(repository: Path = Path(__file__).parent, encoder: str = _ENCODER) -> Path:
    """Return the folder of the bundle, which is made at the first call.

    Parameters
    ----------
    repository : path
        Any folder of a git checkout.
    encoder : str
        SHA-256 of the bundle's encoder.

    Raises
    ------
    InputError
        There is no git, no repository, or its history does not hold the bundle, as in a shallow clone.
    """
    folder = cache_folder() / "benchmarks" / f"tiny-{encoder[:12]}"
    if (folder / "manifest.json").exists():
        return folder
    try:
        root = Path(_git(repository, "rev-parse", "--show-toplevel").decode().strip())
        commits = _git(root, "log", "--format=%H", "--", f"{_FOLDER}/manifest.json").decode().split()
        found = next((commit for commit in commits if _is_of(root, commit, encoder)), None)
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{EARLIER_TINY} comes out of git's history, which cannot be read ({error})") from error
    if found is None:
        raise InputError(f"{EARLIER_TINY} is not in this clone's history: fetch all of it with git fetch --unshallow")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        with replacing(folder / name) as temporary:
            temporary.write_bytes(_git(root, "show", f"{found}:{_FOLDER}/{name}"))
    return folder


def _is_of(root: Path, commit: str, encoder: str) -> bool:
    try:
        content = _git(root, "show", f"{commit}:{_FOLDER}/encoder.onnx")
    except subprocess.CalledProcessError:  # a commit that removed it
        return False
    return hashlib.sha256(content).hexdigest() == encoder


def _git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=60).stdout
