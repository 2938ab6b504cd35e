"""Where the tests of `test_on_gpu` run: a GPU with one of the backends, and always the fake of cuda-core."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

import samg_fast
from samg_fast import _engine
from samg_fast.backends import probe
from samg_fast.metrics import iou
from samg_fast.segmenter import Segmenter
from support import fake_cuda
from support.fake_cuda import Item, Machine, OnGpu, Stream
from support.host_gpu import HostBackend, open_on

LIBRARIES = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "onnxruntime": "onnxruntime",
}
"""The backends on a GPU, and the module of each."""

BATCHES = (1, 8)

ALIKE = 0.99
"""IoU of masks that differ by float32 rounding alone: some pixels at the rim of a target."""

SCORE = 1e-3


class Rig(Protocol):
    """A GPU, or the fake, and a library whose arrays and stream are the caller's."""

    frames: int
    """How many frames a test for leaks takes."""

    def open(self, folder: Path) -> Segmenter:
        """Open a bundle at fp32 for `BATCHES`."""
        ...

    def put(self, array: NDArray[Any]) -> Any:
        """Copy an array into the GPU's memory."""
        ...

    def get(self, array: Any) -> NDArray[Any]:
        """Copy an array from it; what is queued on the caller's stream has been waited for."""
        ...

    def stream(self) -> Any:
        """Return a stream of the caller's."""
        ...

    def wait(self, stream: Any) -> None:
        """Wait for it."""
        ...

    def write_late(self, target: Any, source: Any, stream: Any) -> None:
        """Queue a copy that does not happen at once."""
        ...

    def used(self) -> int:
        """Return how many bytes of the GPU are in use."""
        ...

    def same(self, mask: NDArray[Any], score: float, wanted: Any) -> None:
        """Compare what was found with a segmentation of the same frame, which may be another backend's."""
        ...


class FakeRig:
    """The fake, with networks of ONNX Runtime: numbers are the processor's own."""

    frames = 100

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        lock, wait = threading.RLock(), machine.wait

        def in_turn(until: Callable[[], bool]) -> None:
            with lock:  # of several threads that wait, one at a time runs what is queued
                wait(until)

        machine.wait = in_turn  # type: ignore[method-assign]

    def open(self, folder: Path) -> Segmenter:
        return open_on(folder, HostBackend(self._machine, max_batch=BATCHES[-1]))

    def put(self, array: NDArray[Any]) -> Any:
        return OnGpu(array.copy())

    def get(self, array: Any) -> NDArray[Any]:
        return np.array(array.array)

    def stream(self) -> Any:
        return Stream(self._machine)

    def wait(self, stream: Any) -> None:
        stream.sync()

    def write_late(self, target: Any, source: Any, stream: Any) -> None:
        stream.push(Item("write", lambda: np.copyto(target.array, source.array)))

    def used(self) -> int:
        return sum(len(each) for each in self._machine.memory)

    def same(self, mask: NDArray[Any], score: float, wanted: Any) -> None:
        np.testing.assert_array_equal(mask, wanted.mask)
        assert score == pytest.approx(wanted.score, abs=1e-5)


class GpuRig:
    """A GPU with a backend; arrays and streams are PyTorch's."""

    frames = 10_000

    def __init__(self, backend: str) -> None:
        need(backend)
        self._torch = pytest.importorskip("torch", reason="arrays on the GPU are PyTorch's here")
        if self._torch.version.cuda is None:
            pytest.skip("arrays on the GPU are PyTorch's here, and this one is built without CUDA")
        self._backend = backend

    def open(self, folder: Path) -> Segmenter:
        return samg_fast.load(folder, backend=self._backend, device="cuda", batches=BATCHES)

    def put(self, array: NDArray[Any]) -> Any:
        there = self._torch.from_numpy(np.ascontiguousarray(array)).cuda()
        self._torch.cuda.synchronize()
        return there

    def get(self, array: Any) -> NDArray[Any]:
        values: NDArray[Any] = self._torch.from_dlpack(array).cpu().numpy()
        return values

    def stream(self) -> Any:
        return self._torch.cuda.Stream()

    def wait(self, stream: Any) -> None:
        stream.synchronize()

    def write_late(self, target: Any, source: Any, stream: Any) -> None:
        with self._torch.cuda.stream(stream):
            self._torch.cuda._sleep(100_000_000)  # cycles: some tens of milliseconds
            target.copy_(source)

    def used(self) -> int:
        free, total = self._torch.cuda.mem_get_info()
        return int(total - free)

    def same(self, mask: NDArray[Any], score: float, wanted: Any) -> None:
        assert iou(mask, wanted.mask) >= ALIKE
        assert score == pytest.approx(wanted.score, abs=SCORE)


def need(backend: str) -> None:
    """Skip a test where a backend is not installed for GPUs; where it is, it has to run."""
    library: Any = pytest.importorskip(LIBRARIES[backend], reason=f"the {backend} backend's library is not installed")
    if backend == "onnxruntime" and "CUDAExecutionProvider" not in library.get_available_providers():
        pytest.skip("this ONNX Runtime is not onnxruntime-gpu")
    (status,) = (each for each in probe() if (each.name, each.device) == (backend, "cuda"))
    assert status.available, status.reason


def open_rig(name: str, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Open one of `RIGS`."""
    if name in LIBRARIES:
        return GpuRig(name)
    return FakeRig(fake_cuda.install(monkeypatch, _engine, launch=1, order=name.partition("-")[2]))


RIGS = [
    "fake-forward",
    "fake-shuffled",
    *(pytest.param(backend, marks=pytest.mark.gpu) for backend in LIBRARIES),
]
"""Names of rigs, for a fixture."""
