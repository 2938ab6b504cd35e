"""The OpenVINO backend: the fast one on CPUs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from samg_fast.backends import BackendStatus, Options
from samg_fast.bundle import Bundle
from samg_fast.errors import BackendError

__all__ = ["OpenVinoBackend", "OpenVinoNetwork", "make", "status"]

# An int8 graph quantises itself; the rest of it stays float. What fp16 files hold is computed in float32.
_HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}
_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def make(options: Options) -> OpenVinoBackend:
    """Open the backend."""
    return OpenVinoBackend(options.precision, options.threads)


def status(name: str, device: str) -> BackendStatus:  # noqa: ARG001 (it has one name, and one kind of device)
    """Say whether OpenVINO can run here."""
    version = ov.__version__.split("-")[0]
    try:
        core = ov.Core()
        device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        return BackendStatus("openvino", False, f"it has no CPU device ({_line(error)})", version)
    precisions = ("fp32", "fp16", "bf16", "int8") if bf16 else ("fp32", "fp16", "int8")
    return BackendStatus("openvino", True, "", version, precisions, device)


class OpenVinoBackend:
    """OpenVINO on the CPU, tuned for the latency of one call.

    Parameters
    ----------
    precision : {"fp32", "fp16", "bf16", "int8"}
        What the processor computes in; with fp16, float32 on weights that were rounded, as fp16 files are for GPUs.
    threads : int or None
        CPU threads for each network; None leaves it to OpenVINO.
    """

    name = "openvino"

    def __init__(self, precision: str, threads: int | None) -> None:
        self.version: str = ov.__version__.split("-")[0]
        self.precision = precision
        self.threads = threads
        self._core = ov.Core()
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            # A thread bound to a core waits for whatever else runs there: the simulator, the learner, another worker.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def files(self, precision: str) -> str:
        """Return fp32 for bf16: OpenVINO places bfloat16 itself, and is half as fast on a graph that places it."""
        return "fp32" if precision == "bf16" else precision

    def prepare(self, bundle: Bundle) -> None:
        """Do nothing: files are compiled when they are opened."""

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> OpenVinoNetwork:
        """Read an ONNX file, to run at a precision; the backend's own by default.

        Raises
        ------
        BackendError
            OpenVINO cannot read it.
        """
        try:
            model = self._core.read_model(str(path))
        except RuntimeError as error:
            raise BackendError(f"openvino cannot read {Path(path).name}: {_line(error)}") from error
        config = {**self._config, "INFERENCE_PRECISION_HINT": _HINTS[precision or self.precision]}
        return OpenVinoNetwork(self._core, model, config, Path(path).name)


class OpenVinoNetwork:
    """An ONNX graph on OpenVINO.

    It is compiled anew, with every shape fixed, for each set of input shapes it meets (so for each batch size), and
    each thread has its own inference requests. Both are kept.
    """

    def __init__(self, core: Any, model: Any, config: dict[str, Any], name: str) -> None:
        self._core, self._model, self._config, self._name = core, model, config, name
        self._inputs = {port.get_any_name() for port in model.inputs}
        self._compiled: dict[_Shapes, Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph; see `samg_fast.backends.Network`.

        Outputs last until this thread's next call with the same shapes.
        """
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        requests: dict[_Shapes, _Request] | None = getattr(self._local, "requests", None)
        if requests is None:
            requests = self._local.requests = {}
        if inputs.keys() != self._inputs:
            raise BackendError(
                f"openvino cannot run {self._name}: its inputs are {sorted(self._inputs)}, not {sorted(inputs)}"
            )
        try:
            request = requests.get(shapes)
            if request is None:
                request = requests[shapes] = _Request(self._compile(shapes))
            return request(inputs)
        except RuntimeError as error:
            raise BackendError(f"openvino cannot run {self._name}: {_line(error)}") from error

    def _compile(self, shapes: _Shapes) -> Any:
        with self._lock:
            if shapes not in self._compiled:
                model = self._model.clone()
                model.reshape({name: list(shape) for name, shape in shapes})
                self._compiled[shapes] = self._core.compile_model(model, "CPU", self._config)
            return self._compiled[shapes]


class _Request:
    """One thread's inference request: arrays are bound to it without a copy, and again only when they change."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = [(sorted(port.get_names()), port) for port in compiled.outputs]
        self._bound: dict[str, NDArray[Any]] = {}

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, array in inputs.items():
            if self._bound.get(name) is not array:
                # Keeps the caller's array itself, so that the next call knows it; a strided one is copied anew each
                # time.
                dense = np.ascontiguousarray(array, np.float32)
                self._request.set_tensor(name, ov.Tensor(dense, shared_memory=True))
                self._bound[name] = dense
        self._request.infer()
        return {name: self._request.get_tensor(port).data for names, port in self._outputs for name in names}


def _line(error: BaseException) -> str:
    """Pick the last, telling line of OpenVINO's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
