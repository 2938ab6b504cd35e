"""Whether results can be written, found out before the work starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from samg_fast.errors import MediaError

__all__ = ["check_writable", "output_folder"]


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder, with its parents, and prove that files can be written into it.

    Parameters
    ----------
    path : str or os.PathLike
        The folder; may exist.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    MediaError
        It cannot be made, is a file, or cannot be written into.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MediaError(f"cannot write into the folder {folder}: {error.strerror or error}") from error
    return folder


def check_writable(path: str | os.PathLike[str]) -> None:
    """Prove, before the work starts, that a file can be written at `path`; what stands there is not touched.

    Raises
    ------
    MediaError
        `path` is a folder, or its folder is missing or cannot be written into.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"cannot write {path}: it is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise MediaError(f"cannot write {path}: {error.strerror or error}") from error
