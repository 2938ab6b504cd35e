"""The OpenVINO backend: the fast one on CPUs."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.backends.protocols import BackendStatus, Options
from samg_fast.devices import process
from samg_fast.devices.machine import cores
from samg_fast.errors import BackendError
from samg_fast.files import some_home

with some_home():  # OpenVINO looks for the user's consent to telemetry there
    import openvino as ov
    from openvino.passes import ConstantFolding, Manager

__all__ = ["OpenVinoBackend", "OpenVinoNetwork", "make", "status"]

# An int8 graph quantises itself; the rest of it stays float. What fp16 files hold is computed in float32.
_HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}
_Shapes = tuple[tuple[str, tuple[int, ...]], ...]

_PIECES = (4, 2, 1)
"""Sizes of the pieces that a batch is divided into; more than four images at once are no faster."""

_SMALL = 64 << 20
"""Bytes of weights up to which a graph is compiled for every size of `_PIECES`."""

_KEPT_SHAPES = 2
"""For how many batch sizes a thread keeps its requests and outputs."""

_CORE = ov.Core()
"""OpenVINO's core: one for the whole process, to its end.

The CPU plugin that comes with a core gives its thread another stack for signals, and puts the one before back when the
core ends. Of two cores of which the first ends first, that is memory which is gone, and the next signal, Ctrl-C for
one, ends the process.
"""
process.keep_in_children(_CORE)


class _Threads:
    """Whether OpenVINO's threads are here: they do not survive a fork, and it never starts them again."""

    started = missing = False

    @classmethod
    def note_fork(cls) -> None:
        cls.missing = cls.missing or cls.started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Threads.note_fork)


def make(options: Options) -> OpenVinoBackend:
    """Open the backend."""
    return OpenVinoBackend(options.precision, options.threads)


def status(name: str) -> BackendStatus:
    """Say whether OpenVINO can run here."""
    version = ov.__version__.split("-")[0]
    try:
        device = str(_CORE.get_property("CPU", "FULL_DEVICE_NAME"))
        bf16 = "BF16" in _CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        return BackendStatus(name, False, f"it has no CPU device ({_line(error)})", version)
    precisions = ("fp32", "fp16", "bf16", "int8") if bf16 else ("fp32", "fp16", "int8")
    return BackendStatus(name, True, "", version, precisions, device)


class OpenVinoBackend:
    """OpenVINO on the CPU, tuned for the latency of one call.

    One picture has all threads; of several, each thread has its share, as work is shared out better so than inside
    a layer.

    Parameters
    ----------
    precision : {"fp32", "fp16", "bf16", "int8"}
        What the processor computes in; with fp16, float32 on weights that were rounded, as fp16 files are for GPUs.
    threads : int or None
        CPU threads for each network; None leaves it to OpenVINO.

    Notes
    -----
    A process that was forked from one that ran OpenVINO has none of its threads: there each call runs on its own alone.
    """

    name = "openvino"

    def __init__(self, precision: str, threads: int | None) -> None:
        self.version: str = ov.__version__.split("-")[0]
        self.precision = precision
        self.threads = threads
        # Of threads that are missing, work that is handed to one waits for ever; a call's own thread needs no other
        self._used_threads = 1 if _Threads.missing else threads
        self._config: dict[str, Any] = {
            # A thread bound to a core waits for whatever else runs there: the simulator, the learner, another worker.
            "ENABLE_CPU_PINNING": False,
        }
        if self._used_threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = self._used_threads

    def open(self, path: str | os.PathLike[str], precision: str | None = None) -> OpenVinoNetwork:
        """Read an ONNX file, to run at a precision; the backend's own by default.

        Raises
        ------
        BackendError
            OpenVINO cannot read it.
        """
        precision = precision or self.precision
        try:
            model = _CORE.read_model(str(path))
            if precision in ("fp32", "bf16"):  # of int8, scales and weights must stay apart
                _fold(model)
        except RuntimeError as error:
            raise BackendError(f"openvino cannot read {Path(path).name}: {_line(error)}") from error
        _Threads.started = True
        config = {**self._config, "INFERENCE_PRECISION_HINT": _HINTS[precision]}
        return OpenVinoNetwork(model, config, self._used_threads or cores(), Path(path).name)


class OpenVinoNetwork:
    """An ONNX graph on OpenVINO.

    One image has all threads. Of several, each thread has its share, in pieces of `_PIECES`: the graph is
    compiled with fixed shapes, which is faster than an open batch, and for these few sizes alone, so that memory does
    not grow with the number of batch sizes. Large graphs, of which each compiled copy holds its own weights, are given
    one image at a time. Each thread has its own inference requests.

    Parameters
    ----------
    model : openvino.Model
    config : dict
        Properties for compiling.
    threads : int
        How many pieces run side by side.
    name : str
        What errors call it.
    """

    def __init__(self, model: Any, config: dict[str, Any], threads: int, name: str) -> None:
        self._model, self._config, self._threads, self._name = model, config, threads, name
        self._inputs = {port.get_any_name() for port in model.inputs}
        self._divisible = all(port.get_partial_shape()[0].is_dynamic for port in model.inputs)
        self._pieces: tuple[int, ...] = (1,)
        if _weights(model) <= _SMALL:
            self._pieces = _PIECES if threads > 1 else (8, *_PIECES)  # a graph for one thread takes half the memory
        self._compiled: dict[tuple[_Shapes, int], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph; see `samg_fast.backends.Network`.

        Outputs last until this thread's next call.
        """
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        if inputs.keys() != self._inputs:
            raise BackendError(
                f"openvino cannot run {self._name}: its inputs are {sorted(self._inputs)}, not {sorted(inputs)}"
            )
        try:
            return self._requests(shapes)(inputs)
        except RuntimeError as error:
            raise BackendError(f"openvino cannot run {self._name}: {_line(error)}") from error

    def _requests(self, shapes: _Shapes) -> _Requests:
        """Return this thread's requests for some shapes; those of the few last shapes are kept."""
        kept: OrderedDict[_Shapes, _Requests] | None = getattr(self._local, "requests", None)
        if kept is None:
            kept = self._local.requests = OrderedDict()
        if shapes not in kept:
            kept[shapes] = _Requests(self._waves(shapes))
            if len(kept) > _KEPT_SHAPES:
                kept.popitem(last=False)
        kept.move_to_end(shapes)
        return kept[shapes]

    def _waves(self, shapes: _Shapes) -> list[list[tuple[slice, Any]]]:
        """Divide a batch into pieces that run side by side, wave after wave, each on a compiled graph of its size."""
        batch = shapes[0][1][0]
        if not self._divisible or batch == 1:
            return [[(slice(0, batch), self._compile(shapes, 1))]]
        streams = max(1, min(batch, self._threads))
        share, rest = divmod(batch, streams)
        counts = {size: count * streams for size, count in _in_pieces(share, self._pieces).items()}
        counts[1] = counts.get(1, 0) + rest
        waves, first = [], 0
        for size, count in counts.items():
            if count:
                compiled = self._compile(_first(shapes, size), streams)
                starts = range(first, first + count * size, size)
                waves.append([(slice(at, at + size), compiled) for at in starts])
                first += count * size
        return waves

    def _compile(self, shapes: _Shapes, streams: int) -> Any:
        with self._lock:
            if (shapes, streams) not in self._compiled:
                model = self._model.clone()
                model.reshape({name: list(shape) for name, shape in shapes})
                hint = {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}
                if _Threads.missing:
                    # It would take over what networks that the parent freed have left, and wait for threads of the
                    # parent's for ever. Without streams it takes none of that: a call runs on its own thread.
                    hint = {"NUM_STREAMS": 0}
                self._compiled[shapes, streams] = _CORE.compile_model(model, "CPU", {**self._config, **hint})
            return self._compiled[shapes, streams]


class _Requests:
    """One thread's inference requests for one batch.

    Arrays are bound to them without a copy, and again only when they change.
    """

    def __init__(self, waves: list[list[tuple[slice, Any]]]) -> None:
        self._waves = [[(part, compiled.create_infer_request()) for part, compiled in wave] for wave in waves]
        self._bound: dict[str, NDArray[Any]] = {}
        self._outputs: dict[str, NDArray[Any]] = {}
        last, compiled = waves[-1][-1]
        for port in compiled.outputs:
            output = np.empty((last.stop, *list(port.shape)[1:]), np.float32)
            name = port.get_any_name()
            for part, request in chain.from_iterable(self._waves):
                request.set_tensor(name, ov.Tensor(output[part], shared_memory=True))
            self._outputs |= dict.fromkeys(port.get_names(), output)

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, array in inputs.items():
            if self._bound.get(name) is not array:
                # Keeps the caller's array itself, so that the next call knows it; a strided one is copied anew each
                # time.
                dense = np.ascontiguousarray(array, np.float32)
                for part, request in chain.from_iterable(self._waves):
                    request.set_tensor(name, ov.Tensor(dense[part], shared_memory=True))
                self._bound[name] = dense
        for wave in self._waves:
            if len(wave) == 1:
                wave[0][1].infer()
                continue
            with ExitStack() as stack:  # waits for all of them, even if one fails
                for _, request in wave:
                    request.start_async()
                    stack.callback(request.wait)
        return self._outputs.copy()


def _in_pieces(count: int, sizes: Sequence[int]) -> dict[int, int]:
    """Divide a number of images into pieces, the largest first; return how many there are of each size."""
    pieces = {}
    for size in sizes:
        pieces[size], count = divmod(count, size)
    return pieces


def _fold(model: Any) -> None:
    """Compute once what weights are kept as float16 for, so that compiled copies share them."""
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)


def _weights(model: Any) -> int:
    """Return how many bytes a graph's constants have."""
    constants = [node.output(0) for node in model.get_ops() if node.get_type_name() == "Constant"]
    return sum(math.prod(each.get_shape()) * int(each.get_element_type().size) for each in constants)


def _first(shapes: _Shapes, count: int) -> _Shapes:
    """Return the shapes of so many images."""
    return tuple((name, (count, *shape[1:])) for name, shape in shapes)


def _line(error: BaseException) -> str:
    """Pick the last, telling line of OpenVINO's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
