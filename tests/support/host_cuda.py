"""A GPU whose memory is the host's, as far as engines ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["HostArray", "HostCuda"]


class HostArray:
    """An array of the host as one of a GPU: it has an address, aligned as TensorRT wants it."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = np.full(size + 256, 0xAB, np.uint8)
        start = -memory.ctypes.data % 256
        self.array = memory[start : start + size].view(dtype).reshape(shape)
        self.ptr, self.shape, self.dtype = self.array.ctypes.data, shape, np.dtype(dtype)


class HostCuda:
    """A GPU whose memory is the host's."""

    device_id = 0
    stream = SimpleNamespace(handle=7)

    @contextmanager
    def use(self) -> Iterator[None]:
        yield

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> HostArray:
        return HostArray(shape, dtype)

    def upload(self, array: NDArray[Any]) -> HostArray:
        copy = HostArray(array.shape, array.dtype)
        copy.array[...] = array
        return copy

    def download(self, array: HostArray) -> NDArray[Any]:
        return array.array.copy()

    def synchronize(self) -> None:
        pass
