"""The processor as a device: NumPy arrays, and the kernels of `samg_fast._engine`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samg_fast.checks import check_whole
from samg_fast.devices.base import Array
from samg_fast.devices.machine import cores

try:
    import samg_fast._engine as _engine
except ImportError as error:
    raise ImportError(
        f"samg_fast._engine cannot be loaded ({error}): the package has to be built, so install it with pip"
    ) from error

__all__ = ["CPU", "Cpu"]

_CACHE_LINE = 64  # bytes


class Cpu:
    """The processor, with NumPy arrays.

    It may be used from several threads at once; kernels release the GIL.

    Parameters
    ----------
    threads : int, optional
        The maximum number of threads of an operation; by default one for each core that this process may use. Small
        operations use fewer.

    Raises
    ------
    InputTypeError, InputError
        `threads` is no whole number, or less than 1.
    """

    name = "cpu"
    where = ""
    engine: Any = _engine

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None:
            check_whole("threads", threads, 1)
        self.threads = threads or cores()
        self._launch = self.threads
        self._local = threading.local()

    def view(self, value: Any, *, written: bool = False) -> Array | None:
        """Return an argument as a NumPy array; see `Device.view`. Lists are refused: their dtype would be a guess."""
        if type(value) is np.ndarray:
            return value
        known = isinstance(value, np.ndarray) or (hasattr(value, "__array__") and not written)
        return np.asarray(value) if known else None

    def contiguous(self, name: str, array: Array, first: int = 0) -> Array:
        """Return an array that is in C order from axis `first` on: itself, or a copy in C order."""
        del name
        flags = array.flags
        if flags.aligned and (flags.c_contiguous or (first and _dense_from(array, first))):
            return array
        return array.copy(order="C")

    def writable(self, array: Array) -> bool:
        """Say whether an array may be written to."""
        return bool(array.flags.writeable)

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Allocate a NumPy array."""
        return np.empty(shape, dtype)

    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Return an array in C order with another shape, without a copy."""
        return array.reshape(shape)

    def constant(self, array: NDArray[Any]) -> Array:
        """Return the array itself."""
        return array

    def run(self, operation: str, *arguments: object) -> None:
        """Run a kernel by its name; see `Device.run`."""
        kernel = getattr(self.engine, operation)
        workspace: NDArray[np.uint8] | None = getattr(self._local, "workspace", None)
        if workspace is None:
            workspace = self._local.workspace = _aligned(1 << 16)
        needed = kernel(*arguments, workspace, self._launch)
        if needed > workspace.size:
            self._local.workspace = _aligned(needed)
            kernel(*arguments, self._local.workspace, self._launch)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.threads} threads>"


def _aligned(size: int) -> NDArray[np.uint8]:
    """Allocate a workspace that begins at a cache line."""
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size]


def _dense_from(array: NDArray[Any], first: int) -> bool:
    """Say whether an array is in C order from axis `first` on, with aligned, non-negative strides before it."""
    expected = array.itemsize
    for axis in reversed(range(first, array.ndim)):
        if array.shape[axis] > 1 and array.strides[axis] != expected:
            return False
        expected *= array.shape[axis]
    return all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides[:first])


CPU = Cpu()
"""The default device of operations: the processor, with a thread for each core that this process may use."""
