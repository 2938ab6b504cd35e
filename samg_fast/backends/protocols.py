"""The protocols of backends and networks, the status that a backend reports, and its options."""

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
            By the graph's input names. An array that was passed before is not copied again: write into it and call.

        Returns
        -------
        dict of str to float32 array
            By the graph's output names. The same thread's next call with the same shapes may overwrite them; copy what
            must last longer.

        Raises
        ------
        BackendError
            The graph does not accept these inputs, or failed.
        """
        ...


class DeviceNetwork(Network, Protocol):
    """A graph on a GPU, which also runs on arrays in GPU memory.

    Attributes
    ----------
    capturable : bool
        Whether `enqueue` only queues work, so that it can be captured in a CUDA graph, once it has been called with the
        same shapes and addresses before.
    """

    capturable: bool

    def scratch(self, batch: int) -> int:
        """Return the size of the workspace in bytes for a batch size; 0 if the network has its own workspace."""
        ...

    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph on a stream, without waiting for it. Not thread-safe.

        Parameters
        ----------
        arrays : mapping of str to float32 arrays in GPU memory
            Every input and output by name, in C order; the outputs are overwritten.
        batch : int
            The first axis of all of them.
        stream : cuda.core.Stream
        scratch : uint8 array in GPU memory or None
            Workspace of at least `scratch` bytes, aligned to 256, that nothing else uses until the graph is done; None
            if it needs none.

        Raises
        ------
        BackendError
            The graph does not accept these arrays, or failed.
        """
        ...


class Runtime(Protocol):
    """A library that runs networks, at one precision and with one number of threads.

    Attributes
    ----------
    name, version, precision : str
        The library, its version, and the precision it computes in.
    threads : int or None
        CPU threads for each network; None leaves it to the library.
    """

    name: str
    version: str
    precision: str
    threads: int | None


@runtime_checkable
class GpuRuntime(Runtime, Protocol):
    """A runtime on a GPU; its networks are `DeviceNetwork`.

    Attributes
    ----------
    cuda : Cuda
        The GPU and its stream, on which the kernels run, and the networks when they are called with NumPy arrays.
    max_batch : int or None
        Maximum batch size of its networks; None for no limit.
    """

    cuda: Cuda
    max_batch: int | None


class Backend(Runtime, Protocol):
    """A runtime that opens ONNX files."""

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> Network:
        """Open an ONNX file at a precision; by default the backend's.

        Raises
        ------
        BackendError
            This backend cannot read or run it.
        """
        ...


@runtime_checkable
class CompilingBackend(Runtime, Protocol):
    """A runtime for engines, which are compiled from ONNX files for one GPU; `samg_fast.engine_cache` stores them.

    Attributes
    ----------
    index : int
        Which GPU.
    batches : tuple of int
        Batch sizes that engines are tuned for.
    """

    index: int
    batches: tuple[int, ...]

    def open_engine(self, file: str, engine: bytes) -> DeviceNetwork:
        """Open an engine; `file` is the name of its ONNX file, for error messages.

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
        Version of its library; ``"unknown"`` if the library cannot be loaded, empty if it is not installed.
    precisions : tuple of str
        Precisions it can run on this machine; ``"int8"`` needs a bundle with int8 files.
    detail : str
        The device it would run on.
    device : {"cpu", "cuda"}
        The kind of device.
    untried : str
        Why support for this GPU is unverified, or an empty string. ``"auto"`` skips an unverified backend; named
        explicitly, it may run.
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
    """Options of a backend.

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
        Batch sizes that engines are tuned for, in ascending order.
    """

    name: str
    precision: str
    threads: int | None = None
    device: str = "cpu"
    index: int = 0
    batches: tuple[int, ...] = (1, 8)
