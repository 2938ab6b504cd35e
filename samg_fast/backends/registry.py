"""The table of backends: a row per backend and kind of device, in the order in which ``"auto"`` tries them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

from samg_fast.errors import InputError

__all__ = ["BACKENDS", "REGISTRY", "Row", "check_name", "compiling", "devices", "files_of", "row"]


@dataclass(frozen=True)
class Row:
    """A backend on one kind of device.

    Parameters
    ----------
    name : str
        What `samg_fast.load` takes.
    device : {"cpu", "cuda"}
    module : str
        Its module in `samg_fast.backends`, which has ``status(name)`` and ``make(options)``.
    extra : str
        The extra of this package that installs its libraries.
    fastest : tuple of str
        The precisions that ``"auto"`` may choose, fastest first; fp32 is always among them.
    files : mapping of str to str
        Maps a precision that the backend derives itself to the precision of the files it reads: ``{"bf16": "fp32"}``.
    compiles : bool
        Whether networks are compiled to engines before they run.
    """

    name: str
    device: str
    module: str
    extra: str
    fastest: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    compiles: bool = False

    def load(self) -> ModuleType:
        """Import the backend's module, which imports its library.

        Raises
        ------
        ImportError
            A library is missing, or cannot be loaded.
        """
        return importlib.import_module(f"samg_fast.backends.{self.module}")


REGISTRY = (
    Row("tensorrt", "cuda", "tensorrt", "tensorrt", ("fp16", "bf16", "fp32"), compiles=True),
    Row("tensorrt-rtx", "cuda", "tensorrt", "tensorrt-rtx", ("fp16", "bf16", "fp32"), compiles=True),
    Row("onnxruntime", "cuda", "onnxruntime.cuda", "onnxruntime-gpu", ("fp16", "fp32")),
    # OpenVINO converts fp32 files to bfloat16 itself; files already in bfloat16 run at half the speed. int8 was never
    # faster than bf16 on CPUs that support it (docs/official.md, docs/precision.md).
    Row("openvino", "cpu", "openvino", "cpu", ("bf16", "fp32"), files={"bf16": "fp32"}),
    # On the CPU it computes half precision in float32, so fp16 files are no faster.
    Row("onnxruntime", "cpu", "onnxruntime.cpu", "cpu", ("fp32",)),
)
"""Every backend, in order of preference."""

BACKENDS = tuple(dict.fromkeys(each.name for each in REGISTRY))
"""The names of the backends."""

_DELETED = ("torch", "torch-compiled")


def check_name(name: str, *, auto: bool = True) -> None:
    """Check the name of a backend.

    Raises
    ------
    InputError
        There is no such backend; for one that was removed, the message names its replacement.
    """
    if name in BACKENDS or (auto and name == "auto"):
        return
    if name in _DELETED:
        raise InputError(f"backend is {name!r}, which samg-fast no longer has: use onnxruntime, the portable backend")
    raise InputError(f"backend is {name!r}, expected one of {'auto, ' * auto}{', '.join(BACKENDS)}")


def devices(name: str) -> tuple[str, ...]:
    """Return the kinds of device that a backend runs on, in order of preference."""
    return tuple(each.device for each in REGISTRY if each.name == name)


def row(name: str, device: str) -> Row:
    """Return the row of a backend on a kind of device."""
    return next(each for each in REGISTRY if (each.name, each.device) == (name, device))


def compiling() -> tuple[str, ...]:
    """Return the names of the backends whose networks are compiled to engines."""
    return tuple(each.name for each in REGISTRY if each.compiles)


def files_of(name: str, precision: str) -> str:
    """Return the precision of the files that a backend reads to run at a precision.

    These differ only if the backend derives the precision itself. A backend that is not in the registry reads files of
    the precision it runs at.
    """
    made = (each.files.get(precision) for each in REGISTRY if each.name == name)
    return next((each for each in made if each), precision)
