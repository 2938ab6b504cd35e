"""Writes files whole or not at all, and checks before the work starts that results can be written."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samg_fast.errors import FileError

__all__ = [
    "cache_folder",
    "check_writable",
    "flush",
    "flush_folder",
    "output_folder",
    "replacing",
    "some_home",
    "write_bytes",
    "write_text",
]


def cache_folder() -> Path:
    """Return ``samg-fast`` in the user's cache, existing or not; for data that can be downloaded or built again.

    Raises
    ------
    FileError
        There is no place for it: the user has no home folder, as in some containers.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, paths that are not absolute are ignored
    if Path(cache).is_absolute():
        return Path(cache) / "samg-fast"
    try:
        return Path.home() / ".cache" / "samg-fast"
    except RuntimeError as error:
        raise FileError("there is no folder for a cache, as this user has no home: set XDG_CACHE_HOME") from error


@contextmanager
def some_home() -> Iterator[None]:
    """Give a library that insists on the user's home one that is no folder, where there is none, within the block."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.devnull
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, delete it if the block fails.

    The temporary name starts with a dot and keeps the suffix of `path`, because writers choose their format by it. Two
    processes may write the same file at once: the last rename wins, and a reader always sees one of the whole files.

    Parameters
    ----------
    path : str or os.PathLike
        The file to create or replace. Its folder must exist.

    Yields
    ------
    pathlib.Path
        Where to write. The file must be closed before the block ends.

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    final = Path(path)
    if not final.name or "\0" in final.name:
        raise FileError(f"cannot write {str(path)!r}: it is not the name of a file")
    temporary = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.part{final.suffix}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(final)
        if os.name == "posix":  # a rename survives a crash only once its folder is on the disk
            flush_folder(final.parent)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    write_bytes(path, text.encode("utf-8"))


def flush(path: Path) -> None:
    """Flush a file to the disk."""
    with path.open("rb+") as file:  # opened for writing: Windows refuses to flush a file that is open for reading
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush a folder's entries to the disk; works on POSIX only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder, with its parents, and check that files can be written into it.

    Parameters
    ----------
    path : str or os.PathLike
        The folder; it may exist already.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    FileError
        The folder cannot be created, is a file, or cannot be written into.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(f"cannot write into the folder {folder}: {error.strerror or error}") from error
    return folder


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check, before the work starts, that a file can be written at `path`; an existing file is not touched.

    Raises
    ------
    FileError
        `path` is a folder, or its folder is missing or cannot be written into.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
