"""ONNX Runtime on a GPU, with its CUDA execution provider.

Nothing falls back to the CPU silently: a session that would run without the provider, or compute nodes on the CPU,
raises an error.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from samg_fast.backends.gpu_network import GpuNetwork
from samg_fast.backends.onnxruntime.session import session_options
from samg_fast.backends.protocols import BackendStatus, Options
from samg_fast.devices import driver
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError, first_line

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["OnnxRuntimeGpuBackend", "OnnxRuntimeGpuNetwork", "make", "status"]

_PROVIDER = "CUDAExecutionProvider"
_RUN = "run: pip install 'samg-fast[onnxruntime-gpu]'"

# Operators of shape arithmetic. Shapes are on the host, and kernels read them there. For arrays in GPU memory the
# provider has kernels for these operators, so a node of theirs on the CPU is always shape arithmetic.
_SHAPE_OPERATORS = frozenset({"Concat", "Gather", "Slice", "Squeeze", "Unsqueeze"})


def make(options: Options) -> OnnxRuntimeGpuBackend:
    """Open the backend."""
    return OnnxRuntimeGpuBackend(options.precision, options.index)


def status(name: str) -> BackendStatus:
    """Return whether ONNX Runtime can run on a GPU here, or why not."""
    found = driver.find()
    reason = _obstacle(found)
    if reason:
        return BackendStatus(name, False, reason, ort.__version__, device="cuda")
    gpu = found.found[0]
    precisions = ("fp32", "fp16")  # int8 files would be computed in float32, and partly on the CPU
    return BackendStatus(name, True, "", ort.__version__, precisions, f"{gpu.name} ({gpu.capability})", "cuda")


def _obstacle(found: driver.Gpus) -> str:
    if _PROVIDER not in ort.get_available_providers():
        return f"this ONNX Runtime has no {_PROVIDER}; {_RUN} in place of onnxruntime"
    if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        needed = "1.24, which needs Python 3.11"
        return (
            f"ONNX Runtime {ort.__version__} does not say what it leaves to the processor; install {needed}, or newer"
        )
    needs: str = ort.cuda_version
    major, minor = (int(part) for part in needs.split(".")[:2])
    return (
        driver.check_kernels(found)
        or driver.check_driver(f"ONNX Runtime {ort.__version__}", (major, minor), found)
        or _load()
    )


def _load() -> str:
    """Load the provider and its CUDA libraries; return which one cannot be loaded, or an empty string."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # preload_dlls prints the libraries it does not find
        ort.preload_dlls()
    try:
        # The smallest call that needs the provider; a session would silently run without it
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", 0)
    except RuntimeError as error:
        why = (printed.getvalue().strip() or first_line(error)).splitlines()[0]
        return f"its {_PROVIDER} cannot be loaded ({why}); {_RUN}"
    return ""


class OnnxRuntimeGpuBackend:
    """ONNX Runtime on a GPU.

    Parameters
    ----------
    precision : {"fp32", "fp16"}
        Which of the bundle's files to run.
    index : int
        Which GPU.

    Raises
    ------
    BackendError
        There is no such GPU.
    """

    name = "onnxruntime"
    threads: int | None = None
    max_batch: int | None = None

    def __init__(self, precision: str, index: int) -> None:
        self.version: str = ort.__version__
        self.precision = precision
        self.cuda = Cuda(index)

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> OnnxRuntimeGpuNetwork:  # noqa: ARG002 (the file determines it)
        """Open an ONNX file. `precision` is ignored, because the file determines it.

        Raises
        ------
        BackendError
            ONNX Runtime cannot read the file, or cannot run all of it on the GPU.
        """
        from cuda.core import Device

        file = Path(path).name
        with self.cuda.use():
            stream = Device(self.cuda.device_id).create_stream()
        options = session_options()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider = {
            "device_id": str(self.cuda.device_id),
            "user_compute_stream": str(int(stream.handle)),
            "use_tf32": "0",  # fp32 means float32, not TensorFloat-32
            # The same kernels in every process: a search depends on timings, and results vary with its choice
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",  # leave memory to the policy, which shares the GPU
        }
        try:
            session = ort.InferenceSession(str(path), options, providers=[(_PROVIDER, provider)], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise BackendError(f"onnxruntime cannot read {file}: {first_line(error)}") from error
        _check_placement(session, file)
        return OnnxRuntimeGpuNetwork(self.cuda, file, session, stream)


def _check_placement(session: Any, file: str) -> None:
    """Check that a session computes on the GPU only."""
    first = session.get_providers()[0]
    if first != _PROVIDER:
        raise BackendError(f"onnxruntime cannot run {file} on the GPU: it would run it on {first} instead")
    left = {
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != _PROVIDER
        for node in part.get_nodes()
    } - _SHAPE_OPERATORS
    if left:
        raise BackendError(
            f"onnxruntime cannot run {file} on the GPU: it would leave {', '.join(sorted(left))} to the processor"
        )


class OnnxRuntimeGpuNetwork(GpuNetwork):
    """An ONNX graph on ONNX Runtime's CUDA execution provider.

    A session is bound to one stream. Work queued on another stream is ordered with events: the session's stream waits
    for the other one, then the other one for the session's.

    Parameters
    ----------
    cuda : Cuda
        The GPU.
    file : str
        Name of the file, for error messages.
    session : onnxruntime.InferenceSession
    stream : cuda.core.Stream
        The session's stream.

    Raises
    ------
    BackendError
        An input or output is not float32, or its shape is unknown.
    """

    def __init__(self, cuda: Cuda, file: str, session: Any, stream: Stream) -> None:
        inputs, outputs = _shapes(session.get_inputs(), file), _shapes(session.get_outputs(), file)
        super().__init__(cuda, file, inputs, outputs)
        self._session, self._binding = session, session.io_binding()
        self._stream = stream
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # do not wait for the GPU

    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph; see `DeviceNetwork.enqueue`."""
        del batch, scratch  # the arrays have the batch size; the session has its own workspace
        index = self.cuda.device_id
        try:
            for names, bind in ((self.inputs, self._binding.bind_input), (self.outputs, self._binding.bind_output)):
                for name in names:
                    array = arrays[name]
                    bind(name, "cuda", index, np.float32, tuple(array.shape), int(array.ptr))
            self._stream.wait(stream)
            self._session.run_with_iobinding(self._binding, self._options)
            stream.wait(self._stream)
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise BackendError(f"onnxruntime cannot run {self.name}: {first_line(error)}") from error


def _shapes(values: Any, file: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs or outputs without the batch axis."""
    shapes = {}
    for value in values:
        shape = tuple(value.shape[1:])
        if value.type != "tensor(float)" or not all(isinstance(side, int) for side in shape):
            raise BackendError(
                f"{file} has {value.name} as {value.type} of shape {value.shape}, expected float32 of known sides"
            )
        shapes[value.name] = shape
    return shapes
