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

from samg_fast.device import Array
from samg_fast.errors import BackendError, InputError, InputTypeError, MissingExtraError, SamgError
from samg_fast.gpus import check_memory

if TYPE_CHECKING:
    from cuda.core import Buffer, Stream
    from cuda.core.graph import Graph

__all__ = ["Cuda", "Pinned", "nbytes"]

_MOST_CONSTANTS = 1024
"""Tables kept on a GPU: all that frames of a few dozen sizes need, and an end to boxes that are never the same."""


def nbytes(array: Array) -> int:
    """Return how many bytes an array of a GPU takes, in C order."""
    return int(math.prod(array.shape) * array.dtype.itemsize)


class Pinned:
    """Memory of the host that a GPU copies from and to by itself.

    Attributes
    ----------
    bytes : uint8 array
        The memory.
    """

    def __init__(self, memory: Buffer) -> None:
        self._memory = memory
        self.bytes: NDArray[np.uint8] = np.from_dlpack(memory).view(np.uint8)

    def first(self, size: int) -> Buffer:
        """Return so many bytes of it, as cuda-core copies them."""
        return type(self._memory).from_handle(self._memory.handle, size, owner=self._memory)


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
        try:
            import samg_fast._engine_cuda as engine
        except ImportError as error:
            raise BackendError(
                f"samg_fast._engine_cuda cannot be loaded ({error}): install the package where nvcc is found"
            ) from error
        try:
            self._device = cuda_core.Device(device_id)
            self._device.set_current()
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"GPU {device_id} cannot be used: {error}") from error
        self._core = cuda_core
        self._view = StridedMemoryView
        self._engine = engine
        self._lock = threading.RLock()
        self._stream = stream or self._device.create_stream()
        self._side = self._device.create_stream()
        self._launch = int(self._stream.handle)
        self._constants: dict[int, tuple[NDArray[Any], Array]] = {}
        self._keeping: list[Array] | None = None
        self._workspaces = [self.empty((1 << 16,), np.uint8)]

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
        BackendError
            The GPU refuses.
        """
        builder = self._stream.create_graph_builder()
        try:
            builder.begin_building("relaxed")
            try:
                launch()
            except BaseException:
                with suppress(Exception):  # what went wrong before says more
                    builder.end_building()
                raise
            return builder.end_building().complete()
        except SamgError:
            raise
        except Exception as error:  # cuda-core's own kinds are not public
            raise BackendError(f"a frame cannot be captured as a CUDA graph: {error}") from error
        finally:
            builder.close()

    @contextmanager
    def keeping(self) -> Iterator[list[Array]]:
        """Collect the tables that operations use inside, for whoever runs them again without asking for the tables."""
        outer, self._keeping = self._keeping, []
        try:
            yield self._keeping
        finally:
            self._keeping = outer

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        self._stream.sync()

    @property
    def where(self) -> str:
        """Where its arrays are; see `samg_fast.device.Device`."""
        return f" in the memory of GPU {self._device.device_id}"

    def view(self, value: Any, *, written: bool = False) -> Array | None:
        """Return an argument as a view of this GPU's memory; see `samg_fast.device.Device.view`."""
        del written  # a view is never a copy
        view = value
        if not isinstance(value, self._view):
            try:
                view = self._view(value, stream_ptr=self._launch)
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
        """Make an array, in the order of the stream."""
        buffer = self._device.allocate(max(math.prod(shape) * np.dtype(dtype).itemsize, 1), stream=self._stream)
        return self._view.from_buffer(buffer, tuple(shape), dtype=np.dtype(dtype))

    def allocate(self, size: int) -> Buffer:
        """Allocate bytes of the GPU's memory, in the order of the stream.

        Raises
        ------
        BackendError
            There are not as many left.
        """
        try:
            return self._device.allocate(max(size, 1), stream=self._stream)
        except Exception as error:  # cuda-core's own kinds are not public
            check_memory("this segmenter", size, self.device_id)
            raise BackendError(f"GPU {self.device_id} gives no {size} bytes of memory: {error}") from error

    def place(
        self,
        memory: Buffer,
        offset: int,
        shape: Sequence[int],
        dtype: DTypeLike,
        strides: Sequence[int] | None = None,
    ) -> Array:
        """Return an array that lies in a piece of memory, so many bytes from its beginning; strides are in elements."""
        kind, where = np.dtype(dtype), int(memory.handle) + offset
        size = (
            math.prod(shape) if strides is None else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        )
        part = self._core.Buffer.from_handle(where, max(size, 1) * kind.itemsize, owner=memory)
        return self._view.from_buffer(part, tuple(shape), strides and tuple(strides), dtype=kind)

    def rows(self, array: Array, first: int, count: int) -> Array:
        """Return some entries of the first axis of an array in C order, without a copy."""
        shape = tuple(array.shape[1:])
        size = math.prod(shape) * array.dtype.itemsize
        part = self._core.Buffer.from_handle(int(array.ptr) + first * size, max(count * size, 1), owner=array)
        return self._view.from_buffer(part, (count, *shape), dtype=array.dtype)

    def entry(self, array: Array, index: int) -> Array:
        """Return one entry of the first axis of an array in C order, without a copy."""
        return self.reshape(self.rows(array, index, 1), array.shape[1:])

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

    def free_after(self, stream: Stream | None, array: Array) -> None:
        """Have the memory of an array of `empty` freed in the order of a stream, or of the legacy default one.

        Whoever got the array reads it there, and this GPU's own stream does not wait for that.
        """
        array.exporting_obj.set_deallocation_stream(stream or self._core.LEGACY_DEFAULT_STREAM)

    def pinned(self, size: int) -> Pinned:
        """Allocate memory of the host that the GPU copies from and to without waiting."""
        return Pinned(self._core.LegacyPinnedMemoryResource().allocate(max(size, 1)))

    def copy(self, target: Array, source: Array) -> None:
        """Queue a copy of an array of this GPU in C order into another of as many bytes."""
        size = nbytes(source)
        self._bytes(target, size).copy_from(self._bytes(source, size), stream=self._stream)

    def copy_in(self, target: Array, source: Pinned) -> None:
        """Queue a copy of the first bytes of pinned memory into an array of this GPU in C order."""
        size = nbytes(target)
        self._bytes(target, size).copy_from(source.first(size), stream=self._stream)

    def copy_out(self, target: Pinned, source: Array) -> None:
        """Queue a copy of an array of this GPU in C order into the first bytes of pinned memory."""
        size = nbytes(source)
        self._bytes(source, size).copy_to(target.first(size), stream=self._stream)

    def _bytes(self, array: Array, size: int) -> Buffer:
        return self._core.Buffer.from_handle(array.ptr, size, owner=array)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        size = nbytes(array)
        buffer = self._core.Buffer.from_handle(array.ptr, size, owner=array)
        return self._view.from_buffer(buffer, tuple(shape), dtype=array.dtype, is_readonly=array.readonly)

    def constant(self, array: NDArray[Any]) -> Array:
        """Return a read-only NumPy array as one of this GPU's: copied the first time, and kept for a good while."""
        kept = self._constants.get(id(array))
        if kept is None:
            if len(self._constants) == _MOST_CONSTANTS:
                del self._constants[next(iter(self._constants))]  # the oldest
            # The array is kept too, as its id would be given away after it
            kept = self._constants[id(array)] = (array, self.upload(array))
        if self._keeping is not None:
            self._keeping.append(kept[1])
        return kept[1]

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy a NumPy array into the GPU's memory, and wait for it."""
        host, out = self.pinned(array.nbytes), self.empty(array.shape, array.dtype)
        host.bytes[: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        if array.nbytes:
            self.copy_in(out, host)
        self.synchronize()
        return out

    def download(self, array: Array) -> NDArray[Any]:
        """Copy an array of this GPU in C order into a NumPy array, and wait for it."""
        size = nbytes(array)
        if size == 0:
            return np.empty(array.shape, array.dtype)
        host = self.pinned(size)
        self.copy_out(host, array)
        self.synchronize()
        return np.frombuffer(host.bytes[:size].tobytes(), array.dtype).reshape(array.shape)

    def run(self, operation: str, *arguments: object) -> None:
        """Queue the kernels of an operation; see `samg_fast.device.Device.run`."""
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
