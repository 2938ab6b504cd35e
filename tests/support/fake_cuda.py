"""What samg_fast uses of cuda-core, in host memory: streams that run late, events, graphs, and kernels of the CPU.

Nothing that is queued runs before somebody waits for it. Then streams take turns in an order that a test chooses, and
only events hold them back: what forgets to wait gives wrong numbers here. Memory is overwritten when it is freed, in
the order of the stream that frees it.
"""

from __future__ import annotations

import ctypes
import random
import sys
import threading
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

ORDERS = ("forward", "backward", "shuffled")


@dataclass(eq=False)
class Recording:
    """A place in a stream that an event marks."""

    captured_in: GraphBuilder | None = None
    reached: bool = False


@dataclass(eq=False)
class Item:
    """Something queued: work, or a place to mark or to wait for."""

    name: str
    work: Callable[[], None] | None = None
    records: Recording | None = None
    waits: Recording | None = None


class Machine:
    """The GPU: its streams, what happened on the host's side, and in which order streams take turns."""

    def __init__(self, order: str = "forward") -> None:
        self.streams: list[Stream] = []
        self.log: list[str] = []
        self.ran: list[tuple[int, str]] = []  # stream and name, in the order of execution
        self.memory: list[NDArray[np.uint8]] = []  # everything ever allocated, so that no address is given twice
        self.free = 1 << 40
        self.current = 0
        self._random = random.Random(7)
        self._order = order

    def stream(self, handle: int) -> Stream:
        return next(each for each in self.streams if each.handle == handle)

    def queue(self, handle: int, name: str, work: Callable[[], None]) -> None:
        self.stream(handle).push(Item(name, work))
        self.log.append(name)

    def allocate(self, size: int) -> int:
        whole = np.full(size + 256, 0xAB, np.uint8)  # what memory holds before it is written to, nobody knows
        self.memory.append(whole)
        return whole.ctypes.data + -whole.ctypes.data % 256

    def run(self, queues: list[tuple[int, deque[Item]]], until: Callable[[], bool]) -> None:
        """Let streams take turns until something is true."""
        while not until():
            ready = [(handle, queue) for handle, queue in queues if queue and _may_run(queue[0])]
            assert ready, "every stream waits for another one"
            if self._order == "shuffled":
                handle, queue = self._random.choice(ready)
            else:
                handle, queue = ready[0 if self._order == "forward" else -1]
            item = queue.popleft()
            if item.records is not None:
                item.records.reached = True
            if item.work is not None:
                self.ran.append((handle, item.name))
                item.work()

    def wait(self, until: Callable[[], bool]) -> None:
        self.log.append("sync")
        # Captures of other threads do not restrict this one: they are relaxed
        builders = [stream.captured_in for stream in self.streams]
        mine = [each for each in builders if each is not None and each.thread == threading.get_ident()]
        assert not mine, "the host waits while it captures a graph"
        self.run([(stream.handle, stream.queue) for stream in self.streams], until)


def _may_run(item: Item) -> bool:
    return item.waits is None or item.waits.reached


class Event:
    """Marks a place in a stream, and another one when it is recorded again."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.last: Recording | None = None

    def sync(self) -> None:
        last = self.last
        self._machine.wait(lambda: last is None or last.reached)


class Stream:
    """A queue; in a capture, what it gets goes into the graph."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.queue: deque[Item] = deque()
        self.captured_in: GraphBuilder | None = None
        self.handle = 1000 + len(machine.streams)
        machine.streams.append(self)

    @classmethod
    def from_handle(cls, handle: int) -> Stream:
        return _current().stream(handle)

    def push(self, item: Item) -> None:
        if self.captured_in is None:
            self.queue.append(item)
        else:
            self.captured_in.add(self, item)

    def record(self, event: Event | None = None) -> Event:
        event = event or Event(self._machine)
        event.last = Recording(self.captured_in)
        self.push(Item("record", records=event.last))
        return event

    def wait(self, other: Event | Stream) -> None:
        last = (other.record() if isinstance(other, Stream) else other).last
        if last is None:
            return
        if last.captured_in is not None and self.captured_in is None:
            last.captured_in.join(self)
        self.push(Item("wait", waits=last))

    def sync(self) -> None:
        assert self.captured_in is None, "the host waits for a stream that is captured"
        self._machine.wait(lambda: not self.queue)

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self._machine, self)


class GraphBuilder:
    """What streams were given during a capture."""

    def __init__(self, machine: Machine, root: Stream) -> None:
        self._machine, self._root = machine, root
        self._queues: dict[Stream, list[Item]] = {}
        self.thread = threading.get_ident()

    def begin_building(self, mode: str) -> GraphBuilder:
        assert mode == "relaxed"
        self.join(self._root)
        return self

    def join(self, stream: Stream) -> None:
        stream.captured_in = self
        self._queues[stream] = []

    def add(self, stream: Stream, item: Item) -> None:
        self._queues[stream].append(item)

    def end_building(self) -> GraphBuilder:
        awaited = {item.waits for item in self._queues[self._root] if item.waits}
        for stream, items in self._queues.items():
            stream.captured_in = None
            if stream is not self._root and not (items and items[-1].records in awaited):
                raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNJOINED")
        return self

    def complete(self) -> Graph:
        return Graph(self._machine, {stream.handle: items for stream, items in self._queues.items()})

    def close(self) -> None:
        self._queues = {}


class Graph:
    """Queues that are run together; every launch has recordings of its own."""

    def __init__(self, machine: Machine, queues: dict[int, list[Item]]) -> None:
        self._machine, self._queues = machine, queues
        self.launches = 0

    def launch(self, stream: Stream) -> None:
        self.launches += 1
        self._machine.log.append("graph")

        def work() -> None:
            recordings = {item.records: Recording() for items in self._queues.values() for item in items}
            queues = []
            for handle, items in self._queues.items():
                copies: deque[Item] = deque()
                for item in items:
                    if item.waits is not None and item.waits not in recordings:
                        continue  # what is from before the capture has been reached
                    records = item.records and recordings[item.records]
                    copies.append(Item(item.name, item.work, records, item.waits and recordings[item.waits]))
                queues.append((handle, copies))
            self._machine.run(queues, lambda: not any(queue for _, queue in queues))

        stream.push(Item("graph", work))

    def close(self) -> None:
        self._queues = {}


class Buffer:
    """A piece of memory."""

    def __init__(self, handle: int, size: int, owner: object = None, stream: Stream | None = None) -> None:
        self.handle, self.size, self._owner, self._stream = handle, size, owner, stream

    @classmethod
    def from_handle(cls, ptr: int, size: int, owner: object = None) -> Buffer:
        assert owner is not None, "nothing would keep the memory alive"
        return cls(ptr, size, owner)

    @property
    def data(self) -> NDArray[np.uint8]:
        return memory(self.handle, self.size)

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        assert source.size == self.size
        target, data = self.data, source.data
        _current().log.append("copy")
        stream.push(Item("copy", lambda: target.__setitem__(slice(None), data)))

    def copy_to(self, target: Buffer, *, stream: Stream) -> None:
        target.copy_from(self, stream=stream)

    def set_deallocation_stream(self, stream: Stream) -> None:
        assert self._stream is not None, "this memory is not freed here"
        self._stream = stream

    def __del__(self) -> None:
        if self._stream is not None and self._stream.captured_in is None:
            data = self.data
            self._stream.push(Item("free", lambda: data.fill(0xDD)))

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.view(np.int8).__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()


def memory(address: int, size: int) -> NDArray[np.uint8]:
    """Look at bytes of this process."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def array_at(view: Any) -> NDArray[Any]:
    """Look at the memory of a view, which is the host's, as NumPy does; strides of the view are in elements."""
    shape, dtype = view.shape, view.dtype
    last = sum((n - 1) * s for n, s in zip(shape, view.strides, strict=True)) + 1 if view.strides else view.size
    flat = memory(view.ptr, max(last, 1) * dtype.itemsize)[: last * dtype.itemsize].view(dtype)
    if view.strides:
        steps = [stride * dtype.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=not view.readonly)
    array = flat.reshape(shape)
    array.flags.writeable = not view.readonly
    return array


class StridedMemoryView:
    """An array; strides in elements, None in C order, as cuda-core has them."""

    @classmethod
    def from_any_interface(cls, value: Any, stream_ptr: int) -> StridedMemoryView:
        if not isinstance(value, OnGpu):
            raise BufferError("the input object does not support any data exchange protocol")
        if value.stream is not None and stream_ptr != -1:
            _current().stream(stream_ptr).wait(value.stream)
        view, array = cls.__new__(cls), value.array
        _current().memory.append(array)  # a caller keeps it until the frame is done
        dense = array.flags.c_contiguous
        strides = None if dense else tuple(stride // array.itemsize for stride in array.strides)
        view._set(
            array.ctypes.data, array.shape, strides, array.dtype, value.device_id, not array.flags.writeable, value
        )
        return view

    def _set(
        self,
        ptr: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: np.dtype[Any],
        device_id: int,
        readonly: bool,
        owner: object,
    ) -> None:
        self.ptr, self.shape, self.strides, self.dtype = ptr, tuple(shape), strides, dtype
        self.size = int(np.prod(shape))
        self.device_id, self.is_device_accessible, self.readonly = device_id, device_id >= 0, readonly
        self.exporting_obj = owner

    @classmethod
    def from_buffer(
        cls,
        buffer: Buffer,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        *,
        dtype: np.dtype[Any],
        is_readonly: bool = False,
    ) -> StridedMemoryView:
        view = cls.__new__(cls)
        last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1 if strides else int(np.prod(shape))
        assert last * dtype.itemsize <= buffer.size, "an array reaches beyond its memory"
        view._set(buffer.handle, shape, strides, dtype, 0, is_readonly, buffer)
        return view

    @property
    def array(self) -> NDArray[Any]:
        """The memory as NumPy has it."""
        return array_at(self)

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.device_id)


class OnGpu:
    """Another library's array, and the stream on which that library writes it."""

    def __init__(self, array: NDArray[Any], device_id: int = 0, stream: Stream | None = None) -> None:
        self.array, self.device_id, self.stream = array, device_id, stream
        self.shape, self.dtype = array.shape, array.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.device_id)


@dataclass
class Device:
    """The first GPU or the second; the current one if none is named."""

    device_id: int = -1
    name: str = "a fake"
    allocated: int = field(default=0)

    def __post_init__(self) -> None:
        if self.device_id == -1:
            self.device_id = _current().current
        if self.device_id not in (0, 1):
            raise ValueError(f"device_id must be within [0, 2), got {self.device_id}")

    def set_current(self) -> None:
        _current().log.append("set_current")
        _current().current = self.device_id

    def create_stream(self, obj: Any = None) -> Stream:
        return Stream(_current()) if obj is None else Stream.from_handle(obj.__cuda_stream__()[1])

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert stream.captured_in is None, "memory is allocated while a graph is captured"
        if size > _current().free:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        self.allocated += 1
        _current().log.append("allocate")
        return Buffer(_current().allocate(size), size, stream=stream)


class Queues(Protocol):
    """A GPU in host memory: the fake, or the stub of a driver under the real cuda-core."""

    def queue(self, handle: int, name: str, work: Callable[[], None]) -> None:
        """Queue work on a stream."""
        ...


class Kernels:
    """The functions of an engine, queued instead of run."""

    runtime_version = 13000

    def __init__(self, machine: Queues, engine: ModuleType, launch: int) -> None:
        self._machine, self._engine, self._launch = machine, engine, launch
        self._needed: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        kernel = getattr(self._engine, name)

        def queued(*arguments: Any) -> int:
            *given, workspace, handle = arguments
            arrays, space = _on_host(given), _on_host(workspace)
            # How much workspace it needs is only known from running it, on copies
            kind = name + repr(_shapes(arrays))
            if kind not in self._needed:
                self._needed[kind] = kernel(*deepcopy(arrays), np.zeros(1 << 24, np.uint8), self._launch)
            needed = self._needed[kind]
            assert needed <= 1 << 24
            if needed <= workspace.size:
                work = lambda: kernel(*arrays, space, self._launch)  # noqa: E731
                self._machine.queue(handle, name, work)
            return needed

        return queued


def _on_host(value: Any) -> Any:
    if hasattr(value, "ptr"):
        return array_at(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(each) for each in value)
    return value


def _shapes(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shapes(each) for each in value]
    return value.shape if isinstance(value, np.ndarray) else value


_machines: list[Machine] = []


def _current() -> Machine:
    return _machines[-1]


def install(monkeypatch: pytest.MonkeyPatch, engine: ModuleType, *, launch: int = 0, order: str = "forward") -> Machine:
    """Put the fake, and an engine's kernels, where the real ones would be.

    Parameters
    ----------
    engine : module
        ``_engine_simt``, or ``_engine``, which is faster, with `launch` threads.
    order : str
        One of `ORDERS`.
    """
    machine = Machine(order)
    _machines[:] = [machine]
    default = Stream(machine)
    pinned = SimpleNamespace(allocate=lambda size: Buffer(machine.allocate(size), size))
    core, utils, graph = (ModuleType(f"cuda.core{name}") for name in ("", ".utils", ".graph"))
    core.__dict__.update(
        Device=Device,
        Buffer=Buffer,
        Stream=Stream,
        LegacyPinnedMemoryResource=lambda: pinned,
        LEGACY_DEFAULT_STREAM=default,
        utils=utils,
        graph=graph,
    )
    utils.__dict__.update(StridedMemoryView=StridedMemoryView)
    graph.__dict__.update(Graph=Graph)
    driver = ModuleType("cuda.bindings.driver")
    driver.__dict__.update(
        cuInit=lambda _: (0,),
        cuDriverGetVersion=lambda: (0, 13000),
        cuDeviceGetCount=lambda: (0, 1),
        cuDeviceGet=lambda index: (0, index),
        cuDeviceGetName=lambda _length, _device: (0, b"a fake\0"),
        cuDeviceGetAttribute=lambda attribute, _device: (0, attribute),
        cuDeviceTotalMem=lambda _device: (0, 1 << 40),
        cuMemGetInfo=lambda: (0, machine.free, 1 << 40),
        CUdevice_attribute=SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=8, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=9
        ),
    )
    bindings = ModuleType("cuda.bindings")
    bindings.__dict__.update(driver=driver)
    package = ModuleType("cuda")
    package.__dict__.update(core=core, bindings=bindings)
    for module in (package, core, utils, graph, bindings, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    install_kernels(monkeypatch, Kernels(machine, engine, launch))
    return machine


def install_kernels(monkeypatch: pytest.MonkeyPatch, kernels: Kernels) -> None:
    """Put kernels where the CUDA module would be."""
    import samg_fast

    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", kernels)  # type: ignore[arg-type]
    monkeypatch.setattr(samg_fast, "_engine_cuda", kernels, raising=False)
