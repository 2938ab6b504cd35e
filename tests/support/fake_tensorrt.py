"""A TensorRT whose engines hold their ONNX graph, and run it on ONNX Runtime where host addresses say.

It stands in for three libraries: `install` puts TensorRT 10, TensorRT 11 or TensorRT-RTX where the package imports it.
A GPU's memory is the host's, and its streams are numbers: set `enqueue_hook` of the module to decide when work is done.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import functools
import inspect
import json
import sys
import zlib
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from samg_fast.backends.tensorrt import dialect
from support.gpu_machine import put_kernels

GPU = "8.9"
"""The compute capability of the GPU here."""

_BYTES_A_PICTURE = 4096
_HIDDEN = {"calls", "enqueue_hook"}  # what the module has besides the library's own names

Spans = list[tuple[int, int]]
"""Addresses and numbers of bytes."""


def install(monkeypatch: pytest.MonkeyPatch, backend: str = "tensorrt", version: str = "10.13.2.6") -> Any:
    """Put the fake library of a backend where it is imported, beside kernels, and return its module."""
    put_kernels(monkeypatch)
    module = make(dialect.MODULES[backend], version)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(dialect, "load", functools.cache(inspect.unwrap(dialect.load)))
    return module


def names(kind: Any, prefix: str = "") -> list[str]:
    """List what a fake library has, classes and their members; the real one must have it all."""
    found = []
    for name, value in vars(kind).items():
        if not name.startswith("_") and name not in _HIDDEN:
            found.append(prefix + name)
            if isinstance(value, type):
                found += names(value, f"{prefix}{name}.")
    return found


def make(name: str = "tensorrt", version: str = "10.13.2.6") -> Any:
    """Make a library: `calls` is what was asked of it, `enqueue_hook` gets what a stream is given.

    ``enqueue_hook(handle, work, reads, writes)`` is called with the stream's handle, a function that does the work and
    the memory it reads and writes; without a hook the work is done at once.
    """
    lib: Any = ModuleType(name)
    lib.__version__ = version
    calls: list[tuple[Any, ...]] = []
    lib.calls, lib.enqueue_hook = calls, None

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 0

    class BuilderFlag(enum.IntEnum):
        TF32 = 6

    class DataType(enum.IntEnum):
        FLOAT = 0
        HALF = 1

    class TensorIOMode(enum.IntEnum):
        INPUT = 1
        OUTPUT = 2

    class ExecutionContextAllocationStrategy(enum.IntEnum):
        STATIC = 0
        USER_MANAGED = 2

    class ILogger:
        class Severity(enum.IntEnum):
            INTERNAL_ERROR = 0
            ERROR = 1
            WARNING = 2

        def log(self, severity: Severity, msg: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    class IHostMemory(bytes):
        pass

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> Any:
            return IHostMemory(self._data)

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, list[tuple[int, ...]]] = {}

        def set_shape(self, input: str, *shapes: tuple[int, ...]) -> None:  # noqa: A002 (the library's own name)
            self._shapes[input] = list(shapes)

    class IBuilderConfig:
        progress_monitor: Any = None

        def __init__(self) -> None:
            self._profiles: list[IOptimizationProfile] = []
            self._cache: ITimingCache | None = None

        def clear_flag(self, flag: BuilderFlag) -> None:
            calls.append(("clear_flag", flag))

        def set_flag(self, flag: BuilderFlag) -> None:
            calls.append(("set_flag", flag))

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            calls.append(("set_timing_cache", cache._data, ignore_mismatch))
            if cache._data and not cache._data.startswith(version.encode()):
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> ITimingCache | None:
            return self._cache

    class ITensor:
        def __init__(self, value: Any) -> None:
            self._name, kind = value.name, value.type.tensor_type
            self._shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)

        @property
        def name(self) -> str:
            return str(self._name)

        @property
        def shape(self) -> tuple[int, ...]:
            return self._shape

    class INetworkDefinition:
        _model: Any = None

        @property
        def num_inputs(self) -> int:
            return len(self._model.graph.input)

        @property
        def num_outputs(self) -> int:
            return len(self._model.graph.output)

        def get_input(self, index: int) -> ITensor:
            return ITensor(self._model.graph.input[index])

    class OnnxParser:
        num_errors = 0

        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            self._network, self._logger = network, logger

        def parse_from_file(self, model: str) -> bool:
            try:
                self._network._model = onnx.load(model)
            except Exception as error:
                self._logger.log(ILogger.Severity.ERROR, f"Failed to parse the ONNX model: {type(error).__name__}")
                return False
            return True

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            calls.append(("create_network", flags))
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building engine", step):
                    monitor.phase_finish("Building engine")
                    self._logger.log(ILogger.Severity.ERROR, "Build canceled by user")
                    return None
            monitor.phase_finish("Building engine")
            if config._cache is not None:
                config._cache._data = version.encode() + b" timed"
            plan = {
                "version": version,
                "gpu": GPU,
                "profiles": [profile._shapes for profile in config._profiles],
                "onnx": base64.b64encode(zlib.compress(network._model.SerializeToString(), 1)).decode(),
            }
            return IHostMemory(json.dumps(plan).encode())

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine, given: bool) -> None:
            self._engine, self._memory = engine, (0, 0) if given else None
            self._profile: int | None = None
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            self._profile = profile_index
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            calls.append(("set_input_shape", name, shape))
            least, _, most = self._engine.get_tensor_profile_shape(name, self._profile or 0)
            fits = len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
            self._shapes[name] = tuple(shape)
            return fits or self._fail(f"{name} has the shape {shape}, outside of its profile")

        def set_tensor_address(self, name: str, memory: int) -> bool:
            calls.append(("set_tensor_address", name, memory))
            self._addresses[name] = memory
            return bool(memory) or self._fail(f"{name} has no address")

        def set_device_memory(self, memory: int, size: int) -> None:
            calls.append(("set_device_memory", memory, size))
            assert memory % 256 == 0, "device memory is aligned to 256 bytes"
            self._memory = (memory, size)

        def execute_async_v3(self, stream_handle: int) -> bool:
            calls.append(("execute_async_v3", stream_handle, self._profile))
            session = self._engine._session
            needed = self._engine.get_device_memory_size_for_profile_v2(self._profile or 0)
            if self._memory is not None and self._memory[1] < needed:
                return self._fail("no device memory was set")
            inputs = {each.name: self._shapes[each.name] for each in session.get_inputs()}
            batch = next(iter(inputs.values()))[0]
            outputs = {each.name: (batch, *each.shape[1:]) for each in session.get_outputs()}
            addresses = dict(self._addresses)

            def work() -> None:
                feeds = {each: _at(addresses[each], shape).copy() for each, shape in inputs.items()}
                for each, value in zip(outputs, session.run(list(outputs), feeds), strict=True):
                    _at(addresses[each], outputs[each])[...] = value

            def spans(tensors: dict[str, tuple[int, ...]]) -> Spans:
                return [(addresses[each], 4 * int(np.prod(shape))) for each, shape in tensors.items()]

            if lib.enqueue_hook is None:
                work()
            else:
                lib.enqueue_hook(stream_handle, work, spans(inputs), [*spans(outputs), *filter(None, [self._memory])])
            return True

        def _fail(self, why: str) -> bool:
            self._engine._logger.log(ILogger.Severity.ERROR, f"IExecutionContext::enqueueV3: {why}")
            return False

    class ICudaEngine:
        def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
            options = ort.SessionOptions()
            options.log_severity_level = 3
            model = zlib.decompress(base64.b64decode(plan["onnx"]))
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._profiles, self._logger = plan["profiles"], logger
            self._inputs = {each.name: each for each in self._session.get_inputs()}
            self._tensors = {**self._inputs, **{each.name: each for each in self._session.get_outputs()}}

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        @property
        def num_optimization_profiles(self) -> int:
            return max(len(self._profiles), 1)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType.FLOAT if self._tensors[name].type == "tensor(float)" else DataType.HALF

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(each if isinstance(each, int) else -1 for each in self._tensors[name].shape)

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            if not self._profiles:
                return [self.get_tensor_shape(name)] * 3
            return [tuple(each) for each in self._profiles[profile_index][name]]

        def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
            return _BYTES_A_PICTURE * self.get_tensor_profile_shape(next(iter(self._inputs)), profile_index)[2][0]

        def create_execution_context(self, how: Any = ExecutionContextAllocationStrategy.STATIC) -> IExecutionContext:
            strategy = getattr(how, "_strategy", how)
            cache = getattr(how, "_cache", None)
            calls.append(("create_execution_context", strategy, getattr(how, "_specialisation", None), cache))
            return IExecutionContext(self, strategy == ExecutionContextAllocationStrategy.USER_MANAGED)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            try:
                plan = json.loads(serialized_engine)
            except ValueError:
                self._logger.log(ILogger.Severity.ERROR, "IRuntime::deserializeCudaEngine: magicTag does not match")
                return None
            for key, here in (("version", version), ("gpu", GPU)):
                if plan[key] != here:
                    why = f"IRuntime::deserializeCudaEngine: the plan is for {key} {plan[key]}, not {here}"
                    self._logger.log(ILogger.Severity.ERROR, why)
                    return None
            return ICudaEngine(plan, self._logger)

    for kind in (
        BuilderFlag,
        NetworkDefinitionCreationFlag,
        DataType,
        TensorIOMode,
        ExecutionContextAllocationStrategy,
        ILogger,
        IProgressMonitor,
        IHostMemory,
        ITimingCache,
        IOptimizationProfile,
        IBuilderConfig,
        ITensor,
        INetworkDefinition,
        OnnxParser,
        Builder,
        IExecutionContext,
        ICudaEngine,
        Runtime,
    ):
        setattr(lib, kind.__name__, kind)
    if name == "tensorrt_rtx":
        _add_rtx(lib)
    return lib


def _add_rtx(lib: Any) -> None:
    """Give a library what TensorRT-RTX alone has."""

    class BuilderFlag(enum.IntEnum):
        TF32 = 6
        REQUIRE_USER_ALLOCATION = 28

    class ComputeCapability(enum.IntEnum):
        NONE = 0
        CURRENT = 1
        SM89 = 89
        SM120 = 120

    class DynamicShapesKernelSpecializationStrategy(enum.IntEnum):
        LAZY = 0
        EAGER = 1

    class IRuntimeConfig:
        def __init__(self) -> None:
            self._strategy: Any = None
            self._specialisation: Any = DynamicShapesKernelSpecializationStrategy.LAZY
            self._cache: Any = None

        def create_runtime_cache(self) -> Any:
            return object()

        def set_runtime_cache(self, cache: Any) -> bool:
            self._cache = cache
            return True

        def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
            self._strategy = strategy

        @property
        def dynamic_shapes_kernel_specialization_strategy(self) -> Any:
            return self._specialisation

        @dynamic_shapes_kernel_specialization_strategy.setter
        def dynamic_shapes_kernel_specialization_strategy(self, strategy: Any) -> None:
            self._specialisation = strategy

    def set_compute_capability(_: Any, compute_capability: ComputeCapability, index: int) -> bool:
        lib.calls.append(("set_compute_capability", compute_capability.name, index))
        return True

    lib.IBuilderConfig.num_compute_capabilities = 0
    lib.IBuilderConfig.set_compute_capability = set_compute_capability
    lib.ICudaEngine.create_runtime_config = lambda _: IRuntimeConfig()
    lib.IExecutionContext.is_stream_capturable = lambda _, stream: stream > 0
    lib.BuilderFlag, lib.ComputeCapability, lib.IRuntimeConfig = BuilderFlag, ComputeCapability, IRuntimeConfig
    lib.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy


def _at(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the floats at an address of the host."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
