"""An NVIDIA GPU as a place where the operations of `samg_fast.ops` run, on memory of cuda-core.

Arrays are whatever lies in the GPU's memory and offers DLPack or ``__cuda_array_interface__``: PyTorch's, CuPy's, or
`cuda.core.utils.StridedMemoryView`, which is what comes back. An operation queues kernels on the device's stream and
returns; nothing waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samg_fast.device import Array
from samg_fast.errors import BackendError, InputError, MissingExtraError

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["Cuda"]

_MOST_CONSTANTS = 1024
"""Tables kept on a GPU: all that frames of a few dozen sizes need, and an end to boxes that are never the same."""


class Cuda:
    """An NVIDIA GPU.

    One thread at a time may use it, as kernels share its workspace in the order of its stream; open one for each.

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
        self._stream = stream or self._device.create_stream()
        self._launch = int(self._stream.handle)
        self._constants: dict[int, tuple[NDArray[Any], Array]] = {}
        self._workspace = self.empty((1 << 16,), np.uint8)

    @property
    def stream(self) -> Stream:
        """Where kernels are queued."""
        return self._stream

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

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        size = math.prod(array.shape) * array.dtype.itemsize
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
        return kept[1]

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy a NumPy array into the GPU's memory, and wait for it."""
        host = self._core.LegacyPinnedMemoryResource().allocate(max(array.nbytes, 1))
        np.from_dlpack(host).view(np.uint8)[: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        out = self._device.allocate(max(array.nbytes, 1), stream=self._stream)
        out.copy_from(host, stream=self._stream)
        self.synchronize()
        return self._view.from_buffer(out, array.shape, dtype=array.dtype)

    def download(self, array: Array) -> NDArray[Any]:
        """Copy an array of this GPU in C order into a NumPy array, and wait for it."""
        size = math.prod(array.shape) * array.dtype.itemsize
        if size == 0:
            return np.empty(array.shape, array.dtype)
        host = self._core.LegacyPinnedMemoryResource().allocate(size)
        self._core.Buffer.from_handle(array.ptr, size, owner=array).copy_to(host, stream=self._stream)
        self.synchronize()
        return np.frombuffer(np.from_dlpack(host).tobytes(), array.dtype).reshape(array.shape)

    def run(self, operation: str, *arguments: object) -> None:
        """Queue the kernels of an operation; see `samg_fast.device.Device.run`."""
        kernel = getattr(self._engine, operation)
        try:
            needed = kernel(*arguments, self._workspace, self._launch)
            if needed > self._workspace.size:
                self._workspace = self.empty((needed,), np.uint8)
                kernel(*arguments, self._workspace, self._launch)
        except RuntimeError as error:
            raise BackendError(str(error)) from error

    def __repr__(self) -> str:
        return f"<Cuda: {self._device.name}>"
