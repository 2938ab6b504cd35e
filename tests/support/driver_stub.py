"""The real cuda-core without a GPU: `driver_stub.c` in the place of NVIDIA's driver, and kernels of the processor.

A process loads a driver once, so what uses this runs in one of its own: see `environment`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "libcuda.so.1"

_Work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def compiler() -> str | None:
    """Find a C compiler."""
    return shutil.which("cc")


def environment(folder: Path) -> dict[str, str]:
    """Build the driver into a folder, and return the environment of a process that finds it there."""
    command = ["cc", "-std=c11", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", str(SOURCE)]
    subprocess.run([*command, "-o", str(folder / LIBRARY)], check=True)
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths)}


class Driver:
    """The stub, in a process that finds it."""

    def __init__(self) -> None:
        self._stub = ctypes.CDLL(LIBRARY)
        self._stub.stub_calls.restype = ctypes.c_long
        self._stub.stub_freed_on.restype = ctypes.c_void_p
        self._kept: list[Any] = []  # graphs go on calling what they were given

    @property
    def calls(self) -> int:
        """How often it was called."""
        return int(self._stub.stub_calls())

    @property
    def pieces(self) -> int:
        """How many pieces of a GPU's memory are allocated."""
        return int(self._stub.stub_pieces())

    @property
    def freed_on(self) -> int:
        """The stream in whose order memory was freed last."""
        return int(self._stub.stub_freed_on() or 0)

    def available(self, size: int) -> None:
        """Set how many bytes are free."""
        self._stub.stub_set_available(ctypes.c_size_t(size))

    def replay(self, whether: bool) -> None:
        """Say whether graphs do anything."""
        self._stub.stub_set_replays(int(whether))

    def queue(self, handle: int, name: str, work: Callable[[], None]) -> None:
        """Do work, or have a graph that is captured on the stream do it."""
        del name
        self._kept.append(_Work(lambda _: work()))
        self._stub.stub_launch(ctypes.c_void_p(handle), self._kept[-1], None)


class Interface:
    """Another library's array in the memory of a GPU, which it offers by ``__cuda_array_interface__``."""

    def __init__(self, there: Any) -> None:
        self.there, self.shape = there, there.shape
        self.asked: set[int | None] = set()  # for which streams, by DLPack

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        kind = self.there.dtype.str
        return {"shape": self.shape, "typestr": kind, "data": (self.there.ptr, False), "strides": None, "version": 3}


class Dlpack(Interface):
    """And by DLPack."""

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        self.asked.add(stream)
        return self.there.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> Any:
        return self.there.__dlpack_device__()
