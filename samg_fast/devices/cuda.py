"""An NVIDIA GPU as a place where the operations of `samg_fast.ops` run, on memory of cuda-core.

Arrays are whatever lies in the GPU's memory and offers DLPack or ``__cuda_array_interface__``: PyTorch's, CuPy's, or
`cuda.core.utils.StridedMemoryView`, which is what comes back. An operation queues kernels on the device's stream and
returns; nothing waits for them.
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
"""Tables kept on a GPU: all that frames of a few dozen sizes need, and an end to boxes that are never the same."""

_REACHED = (2, 3, 13)
"""DLPack's numbers of memory that a GPU reaches: its own, page-locked memory of the host, and managed memory."""

_STAGING = 1 << 16
"""Bytes of page-locked memory that a GPU keeps for small arrays on their way; larger ones get their own each time."""

_Tables = dict[int, tuple[NDArray[Any], Array]]
"""NumPy arrays and what they are on the GPU, by the id of the former, which is kept: its id would be given away."""


def dlpack_device(value: Any) -> tuple[int, int] | None:
    """Return DLPack's kind and number of the device that an array is on; None for what does not say."""
    try:
        kind, number = value.__dlpack_device__()
    except (AttributeError, TypeError, ValueError, BufferError):
        return None
    return int(kind), int(number)


def nbytes(array: Array) -> int:
    """Return how many bytes an array of a GPU takes, in C order."""
    return int(math.prod(array.shape) * array.dtype.itemsize)


class Pinned:
    """Memory of the host that a GPU copies from and to by itself.

    Attributes
    ----------
    memory : cuda.core.Buffer
        The memory, as cuda-core copies it.
    bytes : uint8 array
        The same, as NumPy has it.
    """

    def __init__(self, memory: Buffer) -> None:
        self.memory = memory
        self.bytes: NDArray[np.uint8] = np.from_dlpack(memory).view(np.uint8)


class Cuda:
    """An NVIDIA GPU.

    One thread at a time may use it, as kernels share its workspace in the order of its stream: inside `use`, which also
    makes it the thread's current GPU.

    Parameters
    ----------
    device_id : int
        Which GPU.
    stream : cuda.core.Stream, optional
        Where kernels are queued; by default a new stream. To hand it another library's, wrap it:
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
        self._constants: _Tables = {}
        self._keeping: _Tables | None = None
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

    @property
    def device_id(self) -> int:
        """Which GPU."""
        return int(self._device.device_id)

    @property
    def model(self) -> str:
        """The GPU's name."""
        return str(self._device.name)

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
        """Keep other threads away, and make this GPU the current one of this thread, which gets its own back."""
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
        """Give the second stream: what is queued there runs beside what is queued on the first meanwhile.

        It begins after what the first stream held before, and what the first stream gets later waits for it.
        """
        self._side.wait(self._stream)
        try:
            yield self._side
        finally:
            self._stream.wait(self._side)

    def capture(self, launch: Callable[[], None]) -> Graph:
        """Record what a function queues on the stream, instead of running it.

        The function has run before, so that nothing is allocated or copied to the host any more.

        Returns
        -------
        cuda.core.graph.Graph
            Its `launch` queues everything at once. What it reads and writes must be kept as long.

        Raises
        ------
        CaptureError
            The GPU refuses, or something inside does what a capture does not allow.
        SamgError
            As the function raises it, where the capture itself went well.
        """
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("relaxed")
            try:
                launch()
            except BaseException as error:
                try:
                    builder.end_building()
                except Exception:  # what went wrong inside says more
                    if isinstance(error, Exception):
                        raise CaptureError(f"a frame cannot be captured as a CUDA graph: {error}") from error
                raise
            return builder.end_building().complete()
        except SamgError:
            raise
        except Exception as error:  # cuda-core's own kinds are not public
            raise CaptureError(f"a frame cannot be captured as a CUDA graph: {error}") from error
        finally:
            with suppress(Exception):  # closing reports once more that the capture failed
                builder.close()

    @contextmanager
    def keeping(self) -> Iterator[_Tables]:
        """Collect the tables that operations use inside, for whoever runs them again without asking for the tables.

        Inside, a table that was used once is there for good: whoever captures a graph of it uploads nothing.
        """
        outer, self._keeping = self._keeping, {}
        try:
            yield self._keeping
        finally:
            self._keeping = outer

    def synchronize(self) -> None:
        """Wait until everything queued is done.

        Raises
        ------
        BackendError
            Something that was queued has failed.
        """
        try:
            self._stream.sync()
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"GPU {self.device_id} reports {error}") from error

    @property
    def where(self) -> str:
        """Where its arrays are; see `samg_fast.devices.base.Device`."""
        return f" in the memory of GPU {self._device.device_id}"

    def view(self, value: Any, *, written: bool = False, ordered: bool = True) -> Array | None:
        """Return an argument as a view of this GPU's memory; see `samg_fast.devices.base.Device.view`.

        Unless `ordered` is False, its library has what it still writes there come before what is queued from now on.
        """
        del written  # a view is never a copy
        view = value
        if not isinstance(value, self._view):
            where = dlpack_device(value)
            if where is not None and where[0] not in _REACHED:
                return None
            try:
                view = self._view.from_any_interface(value, stream_ptr=self._launch if ordered else -1)
            except (BufferError, TypeError):
                return None
        return view if view.is_device_accessible and view.device_id == self._device.device_id else None

    def contiguous(self, name: str, array: Array, first: int = 0) -> Array:
        """Return an array that is in C order from axis `first` on; others are refused, as a copy would be hidden."""
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
        """Make an array, in the order of the stream; see `allocate`."""
        shape, kind = tuple(shape), np.dtype(dtype)
        memory = self.allocate(math.prod(shape) * kind.itemsize, f"{kind} of shape {shape}")
        return self._view.from_buffer(memory, shape, dtype=kind)

    def allocate(self, size: int, what: str) -> Buffer:
        """Allocate bytes of the GPU's memory, in the order of the stream.

        Parameters
        ----------
        size : int
        what : str
            What needs them, for the message.

        Raises
        ------
        BackendError
            There are not as many left.
        """
        try:
            return self._device.allocate(max(size, 1), stream=self._stream)
        except Exception as error:  # cuda-core's own kinds are not public
            check_memory(what, size, self.device_id)
            raise BackendError(f"GPU {self.device_id} gives no {size} bytes of memory: {error}") from error

    def part(self, memory: Buffer, offset: int, size: int) -> Buffer:
        """Return so many bytes of a piece of memory, without a copy."""
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
        """Return an array that lies in a piece of memory, so many bytes from its beginning; strides are in elements."""
        kind = np.dtype(dtype)
        size = (
            math.prod(shape) if strides is None else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        )
        part = self.part(memory, offset, max(size, 1) * kind.itemsize)
        return self._view.from_buffer(part, tuple(shape), strides and tuple(strides), dtype=kind)

    def wrap(self, stream: Any) -> Stream | None:
        """Return a caller's stream as one of cuda-core's.

        Parameters
        ----------
        stream : cuda.core.Stream, object with ``__cuda_stream__``, int or None
            A stream, one of another library such as ``torch.cuda.current_stream()``, or its handle.

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
        """Have what a stream gets from now on wait for what another one holds; the host does not wait."""
        first.record(self._mark)
        then.wait(self._mark)

    def free_after(self, stream: Stream | None, memory: Buffer) -> None:
        """Have memory of `allocate` freed in the order of a stream, or of the legacy default one.

        Whoever got it reads it there, and this GPU's own stream does not wait for that.
        """
        memory.set_deallocation_stream(stream or self._core.LEGACY_DEFAULT_STREAM)

    def pinned(self, size: int) -> Pinned:
        """Allocate memory of the host that the GPU copies from and to without waiting.

        Raises
        ------
        BackendError
            The host gives none.
        """
        try:
            return Pinned(self._core.LegacyPinnedMemoryResource().allocate(max(size, 1)))
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"the host gives GPU {self.device_id} no {size} page-locked bytes: {error}") from error

    def move(self, target: Buffer, source: Buffer) -> None:
        """Queue a copy of memory, of the GPU or pinned, into as much of the other."""
        target.copy_from(source, stream=self._stream)

    def copy(self, target: Array, source: Array) -> None:
        """Queue a copy of an array of this GPU in C order into another of as many bytes."""
        self.move(self.memory(target), self.memory(source))

    def copy_in(self, target: Array, source: Pinned) -> None:
        """Queue a copy of the first bytes of pinned memory into an array of this GPU in C order."""
        self.move(self.memory(target), self.part(source.memory, 0, nbytes(target)))

    def copy_out(self, target: Pinned, source: Array) -> None:
        """Queue a copy of an array of this GPU in C order into the first bytes of pinned memory."""
        self.move(self.part(target.memory, 0, nbytes(source)), self.memory(source))

    def memory(self, array: Array) -> Buffer:
        """Return the memory of an array in C order, without a copy."""
        return self._core.Buffer.from_handle(array.ptr, nbytes(array), owner=array)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        return self._view.from_buffer(self.memory(array), tuple(shape), dtype=array.dtype, is_readonly=array.readonly)

    def constant(self, array: NDArray[Any]) -> Array:
        """Return a read-only NumPy array as one of this GPU's: copied the first time, and kept for a good while."""
        key = id(array)
        kept = self._constants.pop(key, None) or (self._keeping or {}).get(key) or (array, self.upload(array))
        if len(self._constants) >= _MAX_CONSTANTS:
            del self._constants[next(iter(self._constants))]  # what has not been used for longest
        self._constants[key] = kept
        if self._keeping is not None:
            self._keeping[key] = kept
        return kept[1]

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy a NumPy array into the GPU's memory, and wait for it."""
        # The GPU's memory first: cuda-core cannot free pinned memory while an error is on its way
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
        """Return pinned memory for a copy that is waited for."""
        return self._staging if size <= _STAGING else self.pinned(size)

    def run(self, operation: str, *arguments: object) -> None:
        """Queue the kernels of an operation; see `samg_fast.devices.base.Device.run`."""
        kernel = getattr(self._engine, operation)
        try:
            needed = kernel(*arguments, self._workspaces[-1], self._launch)
            if needed > self._workspaces[-1].size:
                # The smaller ones stay, as graphs that were captured with them go on using them
                self._workspaces.append(self.empty((max(needed, 2 * self._workspaces[-1].size),), np.uint8))
                kernel(*arguments, self._workspaces[-1], self._launch)
        except RuntimeError as error:
            raise BackendError(str(error)) from error

    def __repr__(self) -> str:
        return f"<Cuda: {self._device.name}>"
