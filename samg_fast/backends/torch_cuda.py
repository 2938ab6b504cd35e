"""The torch and torch-compiled backends on a GPU."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from samg_fast.backends import BackendStatus
from samg_fast.backends.gpu_network import GpuNetwork
from samg_fast.backends.onnx_torch import OnnxGraph
from samg_fast.backends.plain import FilesAsTheyAre, first_line
from samg_fast.backends.torch import Compiled, as_written, misfit, open_graph
from samg_fast.devices import driver
from samg_fast.devices.base import Array
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError

if TYPE_CHECKING:
    from cuda.core import Stream

__all__ = ["TorchGpuBackend", "TorchGpuNetwork", "status"]

_SETTING = threading.Lock()
"""Held while a setting of the whole process is another one."""


def status(name: str) -> BackendStatus:
    """Say whether PyTorch can run on a GPU here."""
    found = driver.find()
    reason = _obstacle(name, found)
    if reason:
        return BackendStatus(name, False, reason, torch.__version__, device="cuda")
    gpu = found.found[0]
    halves = ("fp16", "bf16") if gpu.compute_capability >= (8, 0) else ("fp16",)
    precisions = ("fp32", *halves, "int8")
    return BackendStatus(name, True, "", torch.__version__, precisions, f"{gpu.name} ({gpu.capability})", "cuda")


def _obstacle(name: str, found: driver.Gpus) -> str:
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    major, minor = (int(part) for part in torch.version.cuda.split(".")[:2])
    reason = driver.check_kernels(found) or driver.check_driver(f"PyTorch {torch.__version__}", (major, minor), found)
    if reason:
        return reason
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU that it can use"
    if name == "torch-compiled" and importlib.util.find_spec("triton") is None:
        return "it compiles with triton, which is not installed"
    return ""


class TorchGpuBackend(FilesAsTheyAre):
    """PyTorch on a GPU.

    Parameters
    ----------
    name : {"torch", "torch-compiled"}
        Whether operators run one by one, or networks are compiled, at the first call of each batch size.
    precision : {"fp32", "fp16", "bf16", "int8"}
        Which of the bundle's files to run; int8 is exact and slow. Convolutions in float32 are just that, whatever
        ``torch.backends.cudnn`` says, and matrix products unless ``torch.set_float32_matmul_precision`` says less.
    index : int
        Which GPU.

    Raises
    ------
    BackendError
        There is no such GPU.
    """

    threads: int | None = None
    most: int | None = None

    def __init__(self, name: str, precision: str, index: int) -> None:
        self.name, self.precision = name, precision
        self.version: str = torch.__version__
        self.cuda = Cuda(index)

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> TorchGpuNetwork:  # noqa: ARG002 (it is in the file)
        """Read an ONNX file, to run at a precision, which is in the file; it says nothing here.

        Raises
        ------
        BackendError
            It cannot be read, or PyTorch cannot run it.
        """
        return TorchGpuNetwork(self.cuda, Path(path).name, open_graph(self.name, path), backend=self.name)


class TorchGpuNetwork(GpuNetwork):
    """An ONNX graph in PyTorch on a GPU; see `samg_fast.backends.DeviceNetwork`.

    PyTorch allocates what it works in from memory of its own, and copies what it made into the arrays it is given: no
    CUDA graph is captured of it.

    Parameters
    ----------
    cuda : Cuda
        The GPU, and the stream on which a call with NumPy arrays runs.
    name : str
        The file's, for messages.
    graph : OnnxGraph
    backend : {"torch", "torch-compiled"}

    Raises
    ------
    BackendError
        Another axis than the first may vary in the graph, or the GPU refuses its weights.
    """

    def __init__(self, cuda: Cuda, name: str, graph: OnnxGraph, *, backend: str) -> None:
        self._what = f"{backend} cannot run {name}"
        inputs: dict[str, tuple[int, ...]] = {}
        for port, shape in graph.inputs.items():
            inputs[port] = tuple(size for size in shape[1:] if size is not None)
            if len(inputs[port]) != len(shape) - 1:
                raise BackendError(f"{self._what}: more of {port} may vary than its first axis")
        super().__init__(cuda, name, inputs, {port: shape[1:] for port, shape in graph.outputs.items()})
        self._graph, self._device = graph, _device(cuda)
        try:
            with cuda.use():
                module = graph.module.to(self._device)
        except RuntimeError as error:
            raise BackendError(f"{self._what}: {first_line(error)}") from error
        self._run = Compiled(module) if backend == "torch-compiled" else module

    def enqueue(self, arrays: Mapping[str, Array], batch: int, stream: Stream, scratch: Array | None) -> None:
        """Queue the graph; see `DeviceNetwork.enqueue`."""
        del scratch
        shapes = {name: tuple(arrays[name].shape) for name in self.inputs if name in arrays}
        wrong = misfit(self._graph, shapes)
        if wrong:
            raise BackendError(f"{self._what}: {wrong}")
        own = torch.cuda.ExternalStream(int(stream.handle), self._device)
        try:
            with as_written("cuda"), torch.cuda.stream(own), _without_tf32():
                outputs = self._run(*(self._tensor(arrays, name, batch, self.inputs) for name in self.inputs))
                for name, output in zip(self.outputs, outputs, strict=True):
                    self._tensor(arrays, name, batch, self.outputs).copy_(output)
        except BackendError:
            raise
        except Exception as error:  # its compiler's share no base but Exception
            raise BackendError(f"{self._what}: {first_line(error)}") from error

    def _tensor(
        self, arrays: Mapping[str, Array], name: str, batch: int, shapes: Mapping[str, tuple[int, ...]]
    ) -> Tensor:
        """Return an array as a tensor on its memory."""
        shape, array = (batch, *shapes[name]), arrays.get(name)
        tensor = None if array is None else from_dlpack(array)
        if tensor is None or tensor.shape != shape or tensor.dtype != torch.float32 or tensor.device != self._device:
            found = "nothing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
            raise BackendError(
                f"{self._what}: it takes {name} as float32 of shape {shape} on {self._device}, not {found}"
            )
        return tensor


def _device(cuda: Cuda) -> torch.device:
    return torch.device("cuda", cuda.device_id)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Have convolutions compute in float32 meanwhile; unlike matrix products, they do not by default."""
    cudnn: Any = torch.backends.cudnn
    convolutions = cudnn.conv
    with _SETTING:
        before = convolutions.fp32_precision
        convolutions.fp32_precision = "ieee"
        try:
            yield
        finally:
            convolutions.fp32_precision = before
