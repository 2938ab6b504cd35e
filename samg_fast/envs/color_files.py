"""Colour sets in files: the DMControl Generalization Benchmark's own, which PyTorch wrote, and JSON.

PyTorch's files are pickles. They are read here without PyTorch and without running anything in them: a restricted
reader makes plain values and NumPy arrays, and refuses everything else.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np

from samg_fast.errors import FileError

__all__ = ["SUFFIXES", "read_entries"]

SUFFIXES: Final = (".pt", ".json")
"""What a file of colour sets is called, the benchmark's own first."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of a file that `torch.save` wrote before PyTorch 1.6."""

_MAX_BYTES = 16 << 20

_ALLOWED: Final = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),  # bytes, as a pickle of Python 2 has them
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def read_entries(path: str | PathLike[str]) -> list[Any]:
    """Read a file's colour sets, as yet unchecked.

    Parameters
    ----------
    path : path
        A ``.pt`` file, of either of PyTorch's formats, or a JSON file.

    Returns
    -------
    list
        One entry for each set, at least one; numbers in it are plain, and arrays are lists.

    Raises
    ------
    FileError
        The file cannot be read, or is no list of colour sets.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(f"the colours {path} are {path.stat().st_size >> 20} MiB, expected 16 MiB at most")
        content = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read the colours {path}: {error.strerror or error}") from error
    entries = _read_torch(content, path) if path.suffix == ".pt" else _read_json(content, path)
    if isinstance(entries, dict) and all(isinstance(key, int) for key in entries):  # numbered sets
        entries = list(entries.values())
    if not isinstance(entries, (list, tuple)) or not entries:
        kind = "a JSON list" if path.suffix != ".pt" else "a list"
        raise FileError(f"the colours {path} are not {kind} with at least one colour set")
    return list(entries)


def _read_json(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"the colours {path} are not JSON: {error}") from error


def _read_torch(content: bytes, path: Path) -> Any:
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                (name,) = (each for each in archive.namelist() if each.rpartition("/")[2] == "data.pkl")
                return _plain(_Reader(io.BytesIO(archive.read(name))).load())
        stream = io.BytesIO(content)
        if _Reader(stream).load() != _MAGIC:
            raise pickle.UnpicklingError("it does not begin as a file of torch.save does")
        for _ in range(2):  # the format's version, and the machine it was written on
            _Reader(stream).load()
        return _plain(_Reader(stream).load())
    except FileError as error:
        raise FileError(f"cannot read the colours {path}: {error}") from error
    # What a damaged pickle raises has no common base
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"the colours {path} are not a file of torch.save with plain values: {reason}") from error


class _Reader(pickle.Unpickler):
    """Makes plain values and NumPy arrays."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return what an array or a mapping is made with; refuse every other name."""
        if (module, name) not in _ALLOWED:
            raise FileError(f"it holds {module}.{name}, expected numbers and NumPy arrays alone")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002 (whatever it is)
        """Refuse tensors."""
        raise FileError("it holds PyTorch's tensors, expected numbers and NumPy arrays alone")


def _plain(value: Any) -> Any:
    """Return a value with arrays as lists; colours are clipped to 0..1, as MuJoCo does when it draws them."""
    if isinstance(value, (np.ndarray, np.generic)):
        numbers = np.asarray(value)
        return numbers.clip(0, 1).tolist() if numbers.dtype.kind == "f" else numbers.tolist()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
