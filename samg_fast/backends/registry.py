"""Which backends there are: a row for each on each kind of device, in the order in which ``"auto"`` tries them."""

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
        The extra of the package that brings its libraries.
    fastest : tuple of str
        The precisions that ``"auto"`` may choose, the fastest first. fp32 is among them.
    files : mapping of str to str
        For a precision that the backend makes itself: the precision whose files it makes it from.
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
        """Import its module, and with it the library.

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
    # OpenVINO places bfloat16 itself, and is half as fast on a graph that places it. An int8 file was never faster than
    # bf16 where the processor has that (docs/official.md, docs/precision.md).
    Row("openvino", "cpu", "openvino", "cpu", ("bf16", "fp32"), files={"bf16": "fp32"}),
    # It computes half precision in float32, on a processor.
    Row("onnxruntime", "cpu", "onnxruntime.cpu", "cpu", ("fp32",)),
)
"""Every backend, the best first."""

BACKENDS = tuple(dict.fromkeys(each.name for each in REGISTRY))
"""The names of the backends."""

_DELETED = ("torch", "torch-compiled")


def check_name(name: str, *, auto: bool = True) -> None:
    """Refuse what is no backend's name.

    Raises
    ------
    InputError
        It is not; of a backend that earlier versions had, the message says what to use.
    """
    if name in BACKENDS or (auto and name == "auto"):
        return
    if name in _DELETED:
        raise InputError(f"backend is {name!r}, which samg-fast no longer has: use onnxruntime, the portable backend")
    raise InputError(f"backend is {name!r}, expected one of {'auto, ' * auto}{', '.join(BACKENDS)}")


def devices(name: str) -> tuple[str, ...]:
    """Return the kinds of device that a backend runs on, the better one first."""
    return tuple(each.device for each in REGISTRY if each.name == name)


def row(name: str, device: str) -> Row:
    """Return a backend's row."""
    return next(each for each in REGISTRY if (each.name, each.device) == (name, device))


def compiling() -> tuple[str, ...]:
    """Return the names of the backends whose networks are compiled to engines."""
    return tuple(each.name for each in REGISTRY if each.compiles)


def files_of(name: str, precision: str) -> str:
    """Return the precision whose files a backend opens to run at a precision.

    A backend that is not in the registry, a caller's own, opens the files of the precision itself.
    """
    made = (each.files.get(precision) for each in REGISTRY if each.name == name)
    return next((each for each in made if each), precision)
