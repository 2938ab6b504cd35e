"""What a backend and a network promise, how a backend says whether it can run, and how it is told to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

if TYPE_CHECKING:
    from cuda.core import Stream

    from samg_fast.devices.base import Array
    from samg_fast.devices.cuda import Cuda

__all__ = [
    "Backend",
    "BackendStatus",
    "CompilingBackend",
    "DeviceNetwork",
    "GpuRuntime",
    "Network",
    "Options",
    "Runtime",
]


class Network(Protocol):
    """An ONNX graph, ready to run. May be called from several threads at once."""

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Parameters
        ----------
        **inputs : float32 arrays
            By the graph's input names. An array passed again is not copied: write into it and call.

        Returns
        -------
        dict of str to float32 array
            By the graph's output names. A backend may overwrite them in the same thread's next call with the same
            shapes; copy what must last longer.

        Raises
        ------
        BackendError
            The graph does not take these inputs, or failed.
        """
        ...


class DeviceNetwork(Network, Protocol):
    """A graph on a GPU, which also runs on arrays that are there already.

    Attributes
    ----------
    capturable : bool
        Whether `enqueue` does nothing but queue work, so that a CUDA graph can be captured of it. It has been called
        once for the same shapes and addresses before.
    """

    capturable: bool

    def scratch(self, batch: int) -> int:
        """Return how many bytes it needs to work in, for so many images; 0 if it has its own."""
        ...

    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph on a stream; nothing waits for it. One thread at a time.

        Parameters
        ----------
        arrays : mapping of str to float32 arrays of the GPU
            Every input and output by its name, in C order; outputs are written.
        batch : int
            The first axis of all of them.
        stream : cuda.core.Stream
        scratch : uint8 array of the GPU or None
            At least `scratch` bytes that nothing else uses until the graph is done, aligned to 256; None if it needs
            none.

        Raises
        ------
        BackendError
            The graph does not take these arrays, or failed.
        """
        ...


class Runtime(Protocol):
    """What runs networks, at one precision and with one number of threads.

    Attributes
    ----------
    name, version, precision : str
        The library, its version, and what it computes in.
    threads : int or None
        CPU threads for each network; None leaves it to the library.
    """

    name: str
    version: str
    precision: str
    threads: int | None


@runtime_checkable
class GpuRuntime(Runtime, Protocol):
    """What runs networks on a GPU; its networks are `DeviceNetwork`.

    Attributes
    ----------
    cuda : Cuda
        The GPU and its stream: where networks that are called with NumPy arrays run, and the kernels between them.
    max_batch : int or None
        The most images that its networks take at once; None for any number.
    """

    cuda: Cuda
    max_batch: int | None


class Backend(Runtime, Protocol):
    """What opens ONNX files."""

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> Network:
        """Read an ONNX file, to run at a precision; the backend's own by default.

        Raises
        ------
        BackendError
            This backend cannot read or run it.
        """
        ...


@runtime_checkable
class CompilingBackend(Runtime, Protocol):
    """What runs engines, which are compiled from ONNX files for one GPU first; `samg_fast.engine_cache` keeps them.

    Attributes
    ----------
    index : int
        Which GPU.
    batches : tuple of int
        Numbers of images at once that engines are tuned for.
    """

    index: int
    batches: tuple[int, ...]

    def open_engine(self, file: str, engine: bytes) -> DeviceNetwork:
        """Open an engine; `file` is the name of its ONNX file, for messages.

        Raises
        ------
        BackendError
            It cannot run here.
        """
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can run here, on one kind of device.

    Parameters
    ----------
    name : str
        One of `samg_fast.backends.BACKENDS`.
    available : bool
        Whether it can run.
    reason : str
        Why it cannot; empty if it can.
    version : str
        Version of its library, ``"unknown"`` if that cannot be loaded; empty if it is not installed.
    precisions : tuple of str
        What it can run on this machine; ``"int8"`` only where a bundle has it.
    detail : str
        The device it would run on.
    device : {"cpu", "cuda"}
        The kind of device.
    untried : str
        Why support for this GPU is unverified, so that ``"auto"`` passes over it, though it may run when it is named;
        empty otherwise.
    """

    name: str
    available: bool
    reason: str = ""
    version: str = ""
    precisions: tuple[str, ...] = ()
    detail: str = ""
    device: str = "cpu"
    untried: str = ""


@dataclass(frozen=True)
class Options:
    """How a backend is to run.

    Parameters
    ----------
    name : str
        One of `samg_fast.backends.BACKENDS`.
    precision : str
        ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``.
    threads : int or None
        CPU threads for each network; None leaves it to the backend.
    device : {"cpu", "cuda"}
        The kind of device.
    index : int
        Which GPU.
    batches : tuple of int
        Numbers of images at once that engines are tuned for, in ascending order.
    """

    name: str
    precision: str
    threads: int | None = None
    device: str = "cpu"
    index: int = 0
    batches: tuple[int, ...] = (1, 8)
