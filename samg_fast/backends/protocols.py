"""What a backend is: what it opens, how it says whether it can run, and how it is told to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from samg_fast.bundle import Bundle

if TYPE_CHECKING:
    from cuda.core import Stream

    from samg_fast.devices.base import Array
    from samg_fast.devices.cuda import Cuda

__all__ = ["BACKENDS", "Backend", "BackendStatus", "DeviceNetwork", "GpuBackend", "Network", "Options"]

BACKENDS = {
    "tensorrt": ("cuda",),
    "tensorrt-rtx": ("cuda",),
    "openvino": ("cpu",),
    "onnxruntime": ("cuda", "cpu"),
    "torch": ("cuda", "cpu"),
    "torch-compiled": ("cuda", "cpu"),
}
"""The backends there are, and the kinds of device each can run on, the better one first."""


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
        """Return how many bytes it needs to work in, for so many pictures; 0 if it has its own."""
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


class Backend(Protocol):
    """Something that opens ONNX files, at one precision and with one number of threads."""

    name: str
    version: str
    precision: str
    threads: int | None

    def files(self, precision: str) -> str:
        """Say which of a bundle's files a network works from when it runs at a precision: those of the one returned."""
        ...

    def prepare(self, bundle: Bundle) -> None:
        """Make what must be made once of a bundle's files before they are opened, such as engines.

        Raises
        ------
        BackendError
            It cannot be made.
        """
        ...

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> Network:
        """Read an ONNX file, to run at a precision; the backend's own by default.

        Raises
        ------
        BackendError
            This backend cannot read or run it.
        """
        ...


@runtime_checkable
class GpuBackend(Backend, Protocol):
    """A backend on a GPU."""

    cuda: Cuda
    """The GPU and its stream: where networks that are called with NumPy arrays run, and the kernels between them."""

    most: int | None
    """The most pictures that its networks take at once; None for any number."""

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> DeviceNetwork:
        """Read an ONNX file; see `Backend.open`."""
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can run here, on one kind of device.

    Parameters
    ----------
    name : str
        One of `BACKENDS`.
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
        Why ``"auto"`` passes over it though it may run when it is named: nobody knows yet. Empty otherwise.
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
        One of `BACKENDS`.
    precision : str
        ``"fp32"``, ``"fp16"``, ``"bf16"`` or ``"int8"``.
    threads : int or None
        CPU threads for each network; None leaves it to the backend.
    device : {"cpu", "cuda"}
        The kind of device.
    index : int
        Which GPU.
    batches : tuple of int
        Numbers of pictures at once that engines are tuned for, from the smallest; the last one is the most.
    """

    name: str
    precision: str
    threads: int | None = None
    device: str = "cpu"
    index: int = 0
    batches: tuple[int, ...] = (1, 8)
