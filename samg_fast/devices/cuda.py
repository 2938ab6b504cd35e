"""An NVIDIA GPU as a device for the operations of `samg_fast.ops`, with the memory and streams of cuda-core.

It takes any array in the GPU's memory that offers DLPack or ``__cuda_array_interface__``, such as those of PyTorch and
CuPy, and makes arrays of type `cuda.core.utils.StridedMemoryView`. An operation queues kernels on the device's stream
and returns without waiting for them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samg_fast.devices.base import Array
from samg_fast.devices.driver import check_memory, load_kernels
from samg_fast.errors import BackendError, CaptureError, InputError, InputTypeError, MissingExtraError, SamgError

if TYPE_CHECKING:
    from cuda.core import Buffer, Stream
    from cuda.core.graph import Graph

__all__ = ["Cuda", "Pinned", "dlpack_device", "nbytes"]

_MAX_CONSTANTS = 1024
"""Maximum number of constants kept on a GPU: enough for frames of a few dozen sizes, and a limit to ever new boxes."""

_REACHABLE = (2, 3, 13)
"""DLPack's kinds of memory that a GPU can reach: its own, pinned memory of the host, and managed memory."""

_STAGING = 1 << 16
"""Bytes of pinned memory that are kept for copies of small arrays; larger ones allocate their own each time."""

_Constants = dict[int, tuple[NDArray[Any], Array]]
"""NumPy arrays and their copies on the GPU, by the id of the NumPy array, which is kept so that no other has its id."""


def dlpack_device(value: Any) -> tuple[int, int] | None:
    """Return DLPack's kind and number of the device that an array is on; None if it has neither."""
    try:
        kind, number = value.__dlpack_device__()
    except (AttributeError, TypeError, ValueError, BufferError):
        return None
    return int(kind), int(number)


def nbytes(array: Array) -> int:
    """Return how many bytes an array of a GPU has in C order."""
    return int(math.prod(array.shape) * array.dtype.itemsize)


class Pinned:
    """Page-locked memory of the host, which a GPU copies from and to without the processor.

    Attributes
    ----------
    memory : cuda.core.Buffer
        The memory, for copies by cuda-core.
    bytes : uint8 array
        The same memory, for NumPy.
    """

    def __init__(self, memory: Buffer) -> None:
        self.memory = memory
        self.bytes: NDArray[np.uint8] = np.from_dlpack(memory).view(np.uint8)


class Cuda:
    """An NVIDIA GPU.

    Only one thread at a time may use it, as kernels share one workspace in the order of one stream; `use` locks out the
    others.

    Parameters
    ----------
    device_id : int
        Which GPU.
    stream : cuda.core.Stream, optional
        Where kernels are queued; a new stream by default. A stream of another library has to be wrapped:
        ``cuda.core.Stream.from_handle(torch.cuda.current_stream().cuda_stream)``.

    Raises
    ------
    MissingExtraError
        cuda-core is not installed.
    BackendError
        This build has no CUDA module, or there is no such GPU.
    """

    name = "cuda"

    def __init__(self, device_id: int = 0, stream: Stream | None = None) -> None:
        try:
            import cuda.core as cuda_core
            from cuda.core.utils import StridedMemoryView
        except ImportError as error:
            raise MissingExtraError("a GPU", "cuda") from error
        self._core, self._view, self._engine = cuda_core, StridedMemoryView, load_kernels()
        self._lock = threading.RLock()
        self._constants: _Constants = {}
        self._keeping: _Constants | None = None
        try:
            self._device = cuda_core.Device(device_id)
            with self.use():
                self._stream = stream or self._device.create_stream()
                self._side = self._device.create_stream()
                self._launch = int(self._stream.handle)
                self._mark = self._stream.record()
                self._staging = self.pinned(_STAGING)
                self._workspaces = [self.empty((1 << 16,), np.uint8)]
        except SamgError:
            raise
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"GPU {device_id} cannot be used: {error}") from error

    def __repr__(self) -> str:
        return f"<Cuda: {self._device.name}>"

    @property
    def device_id(self) -> int:
        """Which GPU."""
        return int(self._device.device_id)

    @property
    def model(self) -> str:
        """The GPU's name."""
        return str(self._device.name)

    # Streams

    @property
    def stream(self) -> Stream:
        """Where kernels are queued."""
        return self._stream

    @property
    def side(self) -> Stream:
        """A second stream, for what runs beside the first; see `beside`."""
        return self._side

    @contextmanager
    def use(self) -> Iterator[None]:
        """Lock out other threads and make this GPU the current one of this thread; restore the previous one after."""
        with self._lock:
            before = self._core.Device()
            self._core.Device(self.device_id).set_current()
            try:
                yield
            finally:
                if before.device_id != self.device_id:
                    before.set_current()

    @contextmanager
    def beside(self) -> Iterator[Stream]:
        """Give the second stream: work queued there inside runs beside work queued on the first.

        It starts after all earlier work of the first stream, and all later work of the first stream waits for it.
        """
        self._side.wait(self._stream)
        try:
            yield self._side
        finally:
            self._stream.wait(self._side)

    def wrap(self, stream: Any) -> Stream | None:
        """Return a caller's stream as a stream of cuda-core; None for None.

        Parameters
        ----------
        stream : cuda.core.Stream, object with ``__cuda_stream__``, int or None
            A stream, a stream of another library such as ``torch.cuda.current_stream()``, or the handle of one.

        Raises
        ------
        InputTypeError
            It is none of these.
        """
        if stream is None or isinstance(stream, self._core.Stream):
            return stream
        if hasattr(stream, "__cuda_stream__"):
            return self._device.create_stream(stream)
        if isinstance(stream, int) and not isinstance(stream, bool):
            return self._core.Stream.from_handle(stream)
        raise InputTypeError(
            f"stream must be a stream of CUDA, with __cuda_stream__ or as the number of its handle, not {stream!r}"
        )

    def order(self, first: Stream, then: Stream) -> None:
        """Make later work of the stream `then` wait for earlier work of `first`; the host does not wait."""
        first.record(self._mark)
        then.wait(self._mark)

    def capture(self, launch: Callable[[], None]) -> Graph:
        """Record what a function queues on the stream as a CUDA graph, instead of running it.

        The function must have run once before, so that it no longer allocates memory or waits for the GPU.

        Returns
        -------
        cuda.core.graph.Graph
            Its `launch` queues everything at once. The memory it reads and writes must live as long as the graph.

        Raises
        ------
        CaptureError
            The GPU refuses, or the function does something that a capture does not allow.
        SamgError
            The function raised it, and the capture itself was not broken.
        """
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("relaxed")
            try:
                launch()
            except BaseException as error:
                try:
                    builder.end_building()
                except Exception:  # the function's error says more than this one
                    if isinstance(error, Exception):
                        raise CaptureError(f"a frame cannot be captured as a CUDA graph: {error}") from error
                raise
            return builder.end_building().complete()
        except SamgError:
            raise
        except Exception as error:  # cuda-core's own kinds are not public
            raise CaptureError(f"a frame cannot be captured as a CUDA graph: {error}") from error
        finally:
            with suppress(Exception):  # closing reports a failed capture again
                builder.close()

    def synchronize(self) -> None:
        """Wait until all queued work is done.

        Raises
        ------
        BackendError
            Some of it failed.
        """
        try:
            self._stream.sync()
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"GPU {self.device_id} reports {error}") from error

    # The protocol of a device: arrays and kernels; see `samg_fast.devices.base.Device`

    @property
    def where(self) -> str:
        """Where its arrays are; see `samg_fast.devices.base.Device`."""
        return f" in the memory of GPU {self._device.device_id}"

    def view(self, value: Any, *, written: bool = False, ordered: bool = True) -> Array | None:
        """Return an argument as a view of this GPU's memory; see `samg_fast.devices.base.Device.view`.

        If `ordered`, work queued from now on waits for what the array's library still writes there.
        """
        del written  # a view is never a copy
        view = value
        if not isinstance(value, self._view):
            where = dlpack_device(value)
            if where is not None and where[0] not in _REACHABLE:
                return None
            try:
                view = self._view.from_any_interface(value, stream_ptr=self._launch if ordered else -1)
            except (BufferError, TypeError):
                return None
        return view if view.is_device_accessible and view.device_id == self._device.device_id else None

    def contiguous(self, name: str, array: Array, first: int = 0) -> Array:
        """Return the array if it is in C order from axis `first` on; refuse others, as no copy is made in silence."""
        expected = 1
        for axis in reversed(range(first, len(array.shape))):
            if array.strides is not None and array.shape[axis] > 1 and array.strides[axis] != expected:
                axes = "" if first == 0 else f" but for its first {first} axes"
                raise InputError(f"{name} must be in C order{axes}, not have the strides {array.strides}")
            expected *= array.shape[axis]
        return array

    def writable(self, array: Array) -> bool:
        """Say whether an array is not read-only."""
        return not array.readonly

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Allocate an array, in the order of the stream; see `allocate`."""
        shape, kind = tuple(shape), np.dtype(dtype)
        memory = self.allocate(math.prod(shape) * kind.itemsize, f"{kind} of shape {shape}")
        return self._view.from_buffer(memory, shape, dtype=kind)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        return self._view.from_buffer(self.memory(array), tuple(shape), dtype=array.dtype, is_readonly=array.readonly)

    def constant(self, array: NDArray[Any]) -> Array:
        """Return a read-only NumPy array as an array of this GPU, uploaded at its first use and kept for later ones."""
        key = id(array)
        kept = self._constants.pop(key, None) or (self._keeping or {}).get(key) or (array, self.upload(array))
        if len(self._constants) >= _MAX_CONSTANTS:
            del self._constants[next(iter(self._constants))]  # the least recently used
        self._constants[key] = kept
        if self._keeping is not None:
            self._keeping[key] = kept
        return kept[1]

    @contextmanager
    def keeping(self) -> Iterator[_Constants]:
        """Collect the constants that operations use inside, so that a captured graph of them can keep them alive.

        Inside, a constant that was used once stays on the GPU, so that capturing the same operations uploads nothing.
        """
        outer, self._keeping = self._keeping, {}
        try:
            yield self._keeping
        finally:
            self._keeping = outer

    def run(self, operation: str, *arguments: object) -> None:
        """Queue the kernels of an operation; see `samg_fast.devices.base.Device.run`."""
        kernel = getattr(self._engine, operation)
        try:
            needed = kernel(*arguments, self._workspaces[-1], self._launch)
            if needed > self._workspaces[-1].size:
                # Smaller ones are kept: graphs that were captured with them still use them
                self._workspaces.append(self.empty((max(needed, 2 * self._workspaces[-1].size),), np.uint8))
                kernel(*arguments, self._workspaces[-1], self._launch)
        except RuntimeError as error:
            raise BackendError(str(error)) from error

    # Memory, by the byte

    def allocate(self, size: int, what: str) -> Buffer:
        """Allocate bytes of the GPU's memory, in the order of the stream.

        Parameters
        ----------
        size : int
        what : str
            What they are for, for the error message.

        Raises
        ------
        BackendError
            The GPU has too little free memory, or fails.
        """
        try:
            return self._device.allocate(max(size, 1), stream=self._stream)
        except Exception as error:  # cuda-core's own kinds are not public
            check_memory(what, size, self.device_id)
            raise BackendError(f"GPU {self.device_id} gives no {size} bytes of memory: {error}") from error

    def free_after(self, stream: Stream | None, memory: Buffer) -> None:
        """Have memory from `allocate` freed in the order of a caller's stream; None is the legacy default stream.

        The caller reads it on that stream, and this GPU's own stream does not wait for it.
        """
        memory.set_deallocation_stream(stream or self._core.LEGACY_DEFAULT_STREAM)

    def part(self, memory: Buffer, offset: int, size: int) -> Buffer:
        """Return `size` bytes of memory from `offset` on, without a copy."""
        if size == memory.size:
            return memory
        return self._core.Buffer.from_handle(int(memory.handle) + offset, size, owner=memory)

    def place(
        self,
        memory: Buffer,
        offset: int,
        shape: Sequence[int],
        dtype: DTypeLike,
        strides: Sequence[int] | None = None,
    ) -> Array:
        """Return an array that lies in memory, `offset` bytes from its beginning; `strides` are in elements."""
        kind = np.dtype(dtype)
        size = (
            math.prod(shape) if strides is None else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        )
        part = self.part(memory, offset, max(size, 1) * kind.itemsize)
        return self._view.from_buffer(part, tuple(shape), strides and tuple(strides), dtype=kind)

    def memory(self, array: Array) -> Buffer:
        """Return the memory of an array in C order, without a copy."""
        return self._core.Buffer.from_handle(array.ptr, nbytes(array), owner=array)

    def pinned(self, size: int) -> Pinned:
        """Allocate pinned memory.

        Raises
        ------
        BackendError
            The host has too little.
        """
        try:
            return Pinned(self._core.LegacyPinnedMemoryResource().allocate(max(size, 1)))
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"the host gives GPU {self.device_id} no {size} page-locked bytes: {error}") from error

    # Copies

    def move(self, target: Buffer, source: Buffer) -> None:
        """Queue a copy between two pieces of memory of the same size, of the GPU or pinned."""
        target.copy_from(source, stream=self._stream)

    def copy(self, target: Array, source: Array) -> None:
        """Queue a copy between two arrays of this GPU in C order, of the same number of bytes."""
        self.move(self.memory(target), self.memory(source))

    def copy_in(self, target: Array, source: Pinned) -> None:
        """Queue a copy from the beginning of pinned memory into an array of this GPU in C order."""
        self.move(self.memory(target), self.part(source.memory, 0, nbytes(target)))

    def copy_out(self, target: Pinned, source: Array) -> None:
        """Queue a copy of an array of this GPU in C order to the beginning of pinned memory."""
        self.move(self.part(target.memory, 0, nbytes(source)), self.memory(source))

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy a NumPy array into the GPU's memory, and wait for it."""
        # Allocated before pinned memory, which cuda-core cannot free while an exception propagates
        out = self.empty(array.shape, array.dtype)
        if array.nbytes:
            host = self._staged(array.nbytes)
            host.bytes[: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
            self.copy_in(out, host)
        self.synchronize()
        return out

    def download(self, array: Array) -> NDArray[Any]:
        """Copy an array of this GPU in C order into a NumPy array, and wait for it."""
        size = nbytes(array)
        if size == 0:
            return np.empty(array.shape, array.dtype)
        host = self._staged(size)
        self.copy_out(host, array)
        self.synchronize()
        return np.frombuffer(host.bytes[:size].tobytes(), array.dtype).reshape(array.shape)

    def _staged(self, size: int) -> Pinned:
        """Return pinned memory for a copy that its caller waits for."""
        return self._staging if size <= _STAGING else self.pinned(size)
