"""The torch and torch-compiled backends: a bundle's graphs in PyTorch, operator by operator or compiled.

They are for those who have PyTorch anyway, and to find out where another backend's numbers come from: they compute
every data type, cast and quantisation as the files say, int8 in float32 between its roundings.
"""

from __future__ import annotations

import copy
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, _inductor, fx

from samg_fast.backends import Backend, BackendStatus, Options
from samg_fast.backends.onnx_torch import OnnxGraph, UnsupportedError, read
from samg_fast.backends.plain import FilesAsTheyAre, first_line
from samg_fast.errors import BackendError

__all__ = ["Compiled", "TorchBackend", "TorchNetwork", "as_written", "make", "misfit", "open_graph", "status"]

_Run = Callable[..., tuple[Tensor, ...]]

_COMPILING = threading.Lock()
"""Held while something is compiled: PyTorch's compiler is one for the whole process."""


def make(options: Options) -> Backend:
    """Open the backend, on the device that the options name."""
    if options.device == "cuda":
        from samg_fast.backends.torch_cuda import TorchGpuBackend

        return TorchGpuBackend(options.name, options.precision, options.index)
    return TorchBackend(options.name, options.precision, options.threads)


def status(name: str, device: str) -> BackendStatus:
    """Say whether PyTorch can run here."""
    if device == "cuda":
        from samg_fast.backends import torch_cuda

        return torch_cuda.status(name)
    compiler = os.environ.get("CXX", "g++")  # as PyTorch chooses it
    if name == "torch-compiled" and shutil.which(compiler) is None:
        return BackendStatus(name, False, f"it compiles with {compiler}, which is not there", torch.__version__)
    return BackendStatus(name, True, "", torch.__version__, ("fp32", "fp16", "bf16", "int8"), "CPU")


class TorchBackend(FilesAsTheyAre):
    """PyTorch on the processor.

    Parameters
    ----------
    name : {"torch", "torch-compiled"}
        Whether operators run one by one, or networks are compiled, at the first call of each batch size.
    precision : {"fp32", "fp16", "bf16", "int8"}
        Which of the bundle's files to run. On most processors float16, and int8 on all, is exact and slow.
    threads : int or None
        CPU threads. PyTorch has one number for the whole process: it is set here unless this is None.
    """

    def __init__(self, name: str, precision: str, threads: int | None) -> None:
        self.name, self.precision, self.threads = name, precision, threads
        self.version: str = torch.__version__
        if threads is not None:
            torch.set_num_threads(threads)

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> TorchNetwork:  # noqa: ARG002 (it is in the file)
        """Read an ONNX file, to run at a precision, which is in the file; it says nothing here.

        Raises
        ------
        BackendError
            It cannot be read, or PyTorch cannot run it.
        """
        return TorchNetwork(self.name, Path(path).name, open_graph(self.name, path))


class TorchNetwork:
    """An ONNX graph in PyTorch on the processor.

    Parameters
    ----------
    backend : {"torch", "torch-compiled"}
    name : str
        The file's, for messages.
    graph : OnnxGraph
    """

    def __init__(self, backend: str, name: str, graph: OnnxGraph) -> None:
        self._what = f"{backend} cannot run {name}"
        self._graph = graph
        self._run: _Run = Compiled(graph.module) if backend == "torch-compiled" else graph.module

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph; see `samg_fast.backends.Network`. Outputs are new arrays."""
        wrong = misfit(self._graph, {name: array.shape for name, array in inputs.items()})
        if wrong:
            raise BackendError(f"{self._what}: {wrong}")
        # A tensor on the array's memory; PyTorch has no read-only ones, so such an array is copied
        dense = [np.require(inputs[name], np.float32, ["C", "A", "W"]) for name in self._graph.inputs]
        try:
            with as_written("cpu"):
                outputs = self._run(*map(torch.from_numpy, dense))
                made = [output.contiguous().numpy() for output in outputs]
        except Exception as error:  # its compiler's share no base but Exception
            raise BackendError(f"{self._what}: {first_line(error)}") from error
        return dict(zip(self._graph.outputs, made, strict=True))


class Compiled:
    """A graph that is compiled anew, with every shape fixed, for each set of input shapes it meets.

    PyTorch's compiler proper is given the graph: ``torch.compile`` would look it up at every call in a cache that
    threads must not share, and end the process if they do.

    Parameters
    ----------
    module : torch.fx.GraphModule
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._compiled: dict[tuple[torch.Size, ...], _Run] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph; the first call with new shapes takes its time."""
        shapes = tuple(each.shape for each in inputs)
        run = self._compiled.get(shapes)
        if run is None:
            with _COMPILING:
                run = self._compiled.get(shapes) or self._compile(inputs)
                self._compiled[shapes] = run
        return run(*inputs)

    def _compile(self, inputs: Sequence[Tensor]) -> _Run:
        # A copy, as the compiler may change what it is given; and with the casts of the file, which it takes for
        # superfluous otherwise
        module = fx.GraphModule(self._module, copy.deepcopy(self._module.graph))
        run: _Run = _inductor.compile(module, list(inputs), options={"emulate_precision_casts": True})
        return run


@contextmanager
def as_written(device: str) -> Iterator[None]:
    """Have PyTorch compute as a graph says meanwhile: without gradients, and without the caller's autocast."""
    with torch.inference_mode(), torch.autocast(device, enabled=False):
        yield


def open_graph(backend: str, path: str | os.PathLike[str]) -> OnnxGraph:
    """Read an ONNX file.

    Raises
    ------
    BackendError
        It cannot be read, or PyTorch cannot run it.
    """
    try:
        return read(path)
    except UnsupportedError as error:
        raise BackendError(f"{backend} cannot read {Path(path).name}: {error}") from error


def misfit(graph: OnnxGraph, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say why a graph does not take inputs of these shapes; nothing if it does."""
    if shapes.keys() != graph.inputs.keys():
        return f"its inputs are {sorted(graph.inputs)}, not {sorted(shapes)}"
    batch = next(iter(shapes.values()))[:1]
    for name, wanted in graph.inputs.items():
        shape = shapes[name]
        fits = len(shape) == len(wanted) and all(size in (own, None) for own, size in zip(shape, wanted, strict=True))
        if not fits or shape[:1] != batch:
            takes = ", ".join("any" if size is None else str(size) for size in wanted)
            return f"it takes {name} of shape ({takes}), its first axis as long as every input's, not {shape}"
    return ""
