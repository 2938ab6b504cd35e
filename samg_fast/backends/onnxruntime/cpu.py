"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from samg_fast.backends.onnxruntime.session import session_options
from samg_fast.backends.protocols import BackendStatus, Options
from samg_fast.errors import BackendError, first_line

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimeNetwork", "make", "status"]

_PROVIDER = "CPUExecutionProvider"


def make(options: Options) -> OnnxRuntimeBackend:
    """Open the backend."""
    return OnnxRuntimeBackend(options.precision, options.threads)


def status(name: str) -> BackendStatus:
    """Return whether ONNX Runtime can run on the CPU, or why not."""
    if _PROVIDER not in ort.get_available_providers():
        return BackendStatus(name, False, f"this ONNX Runtime has no {_PROVIDER}", ort.__version__)
    return BackendStatus(name, True, "", ort.__version__, ("fp32", "fp16", "int8"), "CPU")


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU.

    Parameters
    ----------
    precision : {"fp32", "fp16", "int8"}
        Which of the bundle's files to run. The CPU computes float16 nodes in float32: fp16 files are meant for GPUs,
        and run here only for validation.
    threads : int or None
        CPU threads for each network; None for one for each physical core that this process may use.
    """

    name = "onnxruntime"

    def __init__(self, precision: str, threads: int | None) -> None:
        self.version: str = ort.__version__
        self.precision = precision
        self.threads = threads

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> OnnxRuntimeNetwork:  # noqa: ARG002 (the file determines it)
        """Open an ONNX file. `precision` is ignored, because the file determines it.

        Raises
        ------
        BackendError
            ONNX Runtime cannot read the file.
        """
        options = session_options(self.threads)
        try:
            session = ort.InferenceSession(str(path), options, providers=[_PROVIDER])
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise BackendError(f"onnxruntime cannot read {Path(path).name}: {first_line(error)}") from error
        return OnnxRuntimeNetwork(session, Path(path).name)


class OnnxRuntimeNetwork:
    """An ONNX graph in an ONNX Runtime session, which may be called from several threads."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name
        self._outputs = [output.name for output in session.get_outputs()]

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph; see `samg_fast.backends.Network`. Outputs are new arrays."""
        dense = {name: np.ascontiguousarray(array, np.float32) for name, array in inputs.items()}
        try:
            return dict(zip(self._outputs, self._session.run(None, dense), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions share no other base class
            raise BackendError(f"onnxruntime cannot run {self._name}: {first_line(error)}") from error
