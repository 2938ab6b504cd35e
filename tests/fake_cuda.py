"""What samg_fast.cuda_device uses of cuda-core, in host memory: its kernels are those of the SIMT executor."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


class Buffer:
    """Bytes."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.size = data, data.nbytes

    @classmethod
    def from_handle(cls, ptr: NDArray[Any], size: int, owner: object = None) -> Buffer:
        assert owner is not None, "nothing would keep the memory alive"
        return cls(ptr.reshape(-1).view(np.uint8)[:size])

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        stream.queued.append("copy")
        self.data[:] = source.data

    def copy_to(self, target: Buffer, *, stream: Stream) -> None:
        target.copy_from(self, stream=stream)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()


class Stream:
    """Remembers what was asked of it."""

    handle = 0

    def __init__(self) -> None:
        self.queued: list[str] = []

    def sync(self) -> None:
        self.queued.append("sync")


class StridedMemoryView:
    """An array; strides in elements, None in C order, as cuda-core has them."""

    def __init__(self, value: Any, stream_ptr: int) -> None:
        assert stream_ptr == Stream.handle
        if not isinstance(value, OnGpu):
            raise BufferError("the input object does not support any data exchange protocol")
        self._set(value.array, value.device_id)

    def _set(self, array: NDArray[Any], device_id: int = 0) -> None:
        self.ptr, self.shape, self.dtype, self.size = array, array.shape, array.dtype, array.size
        dense = array.flags.c_contiguous
        self.strides = None if dense else tuple(stride // array.itemsize for stride in array.strides)
        self.device_id, self.is_device_accessible = device_id, device_id >= 0
        self.readonly = not array.flags.writeable

    @classmethod
    def from_buffer(
        cls, buffer: Buffer, shape: tuple[int, ...], *, dtype: np.dtype[Any], is_readonly: bool = False
    ) -> StridedMemoryView:
        view = cls.__new__(cls)
        count = int(np.prod(shape))
        array = buffer.data[: count * dtype.itemsize].view(dtype).reshape(shape)
        array.flags.writeable = not is_readonly and array.flags.writeable
        view._set(array)
        return view

    def __dlpack__(self, **options: Any) -> Any:
        return self.ptr.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.ptr.__dlpack_device__()


class OnGpu:
    """Another library's array."""

    def __init__(self, array: NDArray[Any], device_id: int = 0) -> None:
        self.array, self.device_id = array, device_id
        self.shape, self.dtype = array.shape, array.dtype


class Device:
    """The first GPU, and the only one."""

    name = "a fake"

    def __init__(self, device_id: int) -> None:
        if device_id != 0:
            raise ValueError(f"device_id must be within [0, 1), got {device_id}")
        self.device_id, self.allocated = device_id, 0

    def set_current(self) -> None:
        pass

    def create_stream(self) -> Stream:
        return Stream()

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        self.allocated += 1
        return Buffer(np.full(size, 0xAB, np.uint8))  # what memory holds before it is written to, nobody knows


def install(monkeypatch: pytest.MonkeyPatch, engine: ModuleType) -> None:
    """Put the fake, and the executor's kernels, where the real ones would be."""
    pinned = SimpleNamespace(allocate=lambda size: Buffer(np.zeros(size, np.uint8)))
    core, utils = ModuleType("cuda.core"), ModuleType("cuda.core.utils")
    core.__dict__.update(Device=Device, Buffer=Buffer, Stream=Stream, LegacyPinnedMemoryResource=lambda: pinned)
    utils.__dict__.update(StridedMemoryView=StridedMemoryView)
    package = ModuleType("cuda")
    package.__dict__.update(core=core)
    core.__dict__.update(utils=utils)
    for module in (package, core, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    import samg_fast

    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", engine)
    monkeypatch.setattr(samg_fast, "_engine_cuda", engine, raising=False)
