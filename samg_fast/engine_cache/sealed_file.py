"""Files with a JSON header and content, both protected by their SHA-256, which is verified when they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from samg_fast.errors import DamagedFileError
from samg_fast.files import replacing

__all__ = ["is_sealed", "read_header", "read_sealed", "write_sealed"]

# The first line is this, followed by the SHA-256 of the second line, which is the JSON header. The content follows.
_MAGIC = b"samg-fast sealed 1 "
_FIRST_LINE = len(_MAGIC) + 64 + 1
_MAX_HEADER = 1 << 20


def write_sealed(path: str | os.PathLike[str], header: Mapping[str, Any], content: bytes) -> None:
    """Write a file atomically.

    Parameters
    ----------
    path : str or os.PathLike
    header : mapping
        Plain values.
    content : bytes

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    seal = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "header": dict(header)}
    line = json.dumps(seal, ensure_ascii=False, sort_keys=True).encode() + b"\n"
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_MAGIC + hashlib.sha256(line).hexdigest().encode() + b"\n" + line)
        file.write(content)


def read_sealed(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """Return a file's header and its content.

    Raises
    ------
    DamagedFileError
        It is truncated or altered.
    OSError
        It cannot be read.
    """
    with Path(path).open("rb") as file:
        seal = _read_seal(file)
        content = file.read()
    if hashlib.sha256(content).hexdigest() != seal["sha256"]:
        raise DamagedFileError("is altered: its content has another SHA-256 than its header says")
    return seal["header"], content


def read_header(path: str | os.PathLike[str]) -> tuple[dict[str, Any], int]:
    """Return a file's header and the size of its content in bytes, without reading the content.

    Raises
    ------
    DamagedFileError
        It is truncated, or its header is altered.
    OSError
        It cannot be read.
    """
    with Path(path).open("rb") as file:
        seal = _read_seal(file)
        return seal["header"], seal["size"]


def is_sealed(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins like those written here; a truncated or empty file counts too."""
    with Path(path).open("rb") as file:
        begins = file.read(len(_MAGIC))
    return _MAGIC.startswith(begins)


def _read_seal(file: BinaryIO) -> dict[str, Any]:
    first = file.read(_FIRST_LINE)
    if not first.startswith(_MAGIC):
        raise DamagedFileError("does not begin as it should" if first else "is empty")
    line = file.readline(_MAX_HEADER)
    if hashlib.sha256(line).hexdigest().encode() + b"\n" != first[len(_MAGIC) :]:
        raise DamagedFileError("has a header that is truncated or altered")
    seal: dict[str, Any] = json.loads(line)
    has = os.fstat(file.fileno()).st_size - file.tell()
    if has != seal["size"]:
        raise DamagedFileError(f"is truncated or altered: it holds {has} bytes of {seal['size']}")
    return seal
