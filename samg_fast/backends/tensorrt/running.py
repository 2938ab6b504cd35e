"""Run engines on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from samg_fast.backends.gpu_network import GpuNetwork
from samg_fast.backends.tensorrt import dialect
from samg_fast.devices import driver
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["TensorRtNetwork"]

_Shapes = dict[str, tuple[int, ...]]


class TensorRtNetwork(GpuNetwork):
    """An engine, ready to run; see `samg_fast.backends.DeviceNetwork`.

    Each optimisation profile runs once when the engine is opened, so that kernels are compiled and loaded then and not
    during the first frame. `enqueue` keeps one execution context per batch size and set of array addresses, and never
    changes it again: the behaviour of a CUDA graph is undefined once the context that it was captured from has changed.
    All contexts share the workspace that the caller provides. `enqueue_once` shares one context per batch size.

    Parameters
    ----------
    cuda : Cuda
        The GPU, and the stream on which a call with NumPy arrays runs.
    name : str
        Name of the file, for error messages.
    engine : bytes
        As returned by `samg_fast.backends.tensorrt.build_engine`.
    backend : {"tensorrt", "tensorrt-rtx"}

    Raises
    ------
    BackendError
        The engine was built by another version or for another GPU, has tensors that are not float32, needs more memory
        than is free, or fails.
    MissingExtraError
        The library is not installed.
    """

    def __init__(self, cuda: Cuda, name: str, engine: bytes, *, backend: str) -> None:
        self._library = dialect.load(backend)
        with cuda.use():
            driver.check_memory(f"the engine of {name}", len(engine), cuda.device_id)
            self._library.messages.clear()
            # Keep the runtime alive as long as the engine
            self._runtime = self._library.library.Runtime(self._library.messages)
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                here = driver.find().found[cuda.device_id]
                raise self._library.failure(f"open the engine of {name} on {here.name} ({here.capability})")
            super().__init__(cuda, name, *_tensors(self._library, self._engine, name))
            self._profiles = [self._profile(index) for index in range(self._engine.num_optimization_profiles)]
            self._make_context = self._library.contexts(self._engine)
            self._bound: dict[tuple[int, ...], Any] = {}  # by batch size and all addresses
            self._shared: dict[int, Any] = {}  # by batch size
            driver.check_memory(f"running {name}", max(each.memory for each in self._profiles), cuda.device_id)
            for profile in self._profiles:
                self._warm_up(profile.max_batch)
            handle = int(cuda.stream.handle)
            self.capturable = all(self._library.capturable(each, handle) for each in self._shared.values())

    def scratch(self, batch: int) -> int:
        """Return the size of the workspace in bytes for a batch size; see `DeviceNetwork.scratch`."""
        return self._fitting(batch).memory

    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the engine; see `DeviceNetwork.enqueue`."""
        given = [scratch, *(arrays.get(name) for name in (*self.inputs, *self.outputs))]
        key = (batch, *(0 if each is None else each.ptr for each in given))
        context = self._bound.get(key)
        if context is None:
            context = self._open(batch)
            self._bind(context, arrays, batch, scratch)
            self._bound[key] = context
        self._expect(context.execute_async_v3(int(stream.handle)))

    def enqueue_once(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the engine on the shared context of a batch size; see `GpuNetwork.enqueue_once`."""
        if batch not in self._shared:
            self._shared[batch] = self._open(batch)
        self._bind(self._shared[batch], arrays, batch, scratch)
        self._expect(self._shared[batch].execute_async_v3(int(stream.handle)))

    def _profile(self, index: int) -> _Profile:
        smallest, _, largest = self._engine.get_tensor_profile_shape(next(iter(self.inputs)), index)
        memory = int(self._engine.get_device_memory_size_for_profile_v2(index))
        return _Profile(index, smallest[0], largest[0], memory)

    def _open(self, batch: int) -> Any:
        """Create an execution context for a batch size."""
        profile = self._fitting(batch)
        context = self._make_context()
        self._expect(context is not None)
        self._expect(context.set_optimization_profile_async(profile.number, int(self.cuda.stream.handle)))
        self.cuda.synchronize()  # the profile must be set before work is queued on any other stream
        for name, shape in self.inputs.items():
            self._expect(context.set_input_shape(name, (batch, *shape)))
        return context

    def _warm_up(self, batch: int) -> None:
        shapes = {**self.inputs, **self.outputs}
        arrays = {name: self.cuda.empty((batch, *shape), np.float32) for name, shape in shapes.items()}
        needed = self.scratch(batch)
        self.enqueue_once(arrays, batch, self.cuda.stream, self.cuda.empty((needed,), np.uint8) if needed else None)
        self.cuda.synchronize()

    def _fitting(self, batch: int) -> _Profile:
        for profile in self._profiles:
            if profile.min_batch <= batch <= profile.max_batch:
                return profile
        smallest, largest = self._profiles[0].min_batch, self._profiles[-1].max_batch
        takes = f"{smallest} to {largest}" if smallest != largest else str(largest)
        raise BackendError(f"the engine of {self.name} takes {takes} pictures at once, not {batch}")

    def _bind(self, context: Any, arrays: Mapping[str, Array], batch: int, scratch: Array | None) -> None:
        """Set the addresses of a context's arrays and of its workspace."""
        for name, tail in {**self.inputs, **self.outputs}.items():
            shape, array = (batch, *tail), arrays.get(name)
            if array is None or tuple(array.shape) != shape or array.dtype != np.float32:
                found = "nothing" if array is None else f"{array.dtype} of shape {tuple(array.shape)}"
                raise BackendError(f"{self.name} takes {name} as float32 of shape {shape}, not {found}")
            self._expect(context.set_tensor_address(name, array.ptr))
        memory = self.scratch(batch)
        if memory:
            assert scratch is not None, "scratch() says that it needs some"
            context.set_device_memory(scratch.ptr, memory)

    def _expect(self, done: object) -> None:
        if not done:
            raise self._library.failure(f"run {self.name}")


class _Profile(NamedTuple):
    """An optimisation profile: its range of batch sizes, and the size of its workspace in bytes."""

    number: int
    min_batch: int
    max_batch: int
    memory: int


def _tensors(library: dialect.Dialect, engine: Any, name: str) -> tuple[_Shapes, _Shapes]:
    """Return the shapes of an engine's inputs and outputs without their first axes."""
    inputs: _Shapes = {}
    outputs: _Shapes = {}
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        shape, kind = tuple(engine.get_tensor_shape(tensor)), engine.get_tensor_dtype(tensor)
        if kind != library.library.DataType.FLOAT or -1 in shape[1:]:
            raise BackendError(
                f"the engine of {name} has {tensor} as {kind} of shape {shape}: "
                "only float32 tensors whose first axis alone may vary can be run"
            )
        is_input = engine.get_tensor_mode(tensor) == library.library.TensorIOMode.INPUT
        (inputs if is_input else outputs)[tensor] = shape[1:]
    return inputs, outputs
