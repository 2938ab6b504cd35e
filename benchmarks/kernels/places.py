"""Where `benchmarks.kernels` measures: a processor or a GPU, its clock, and how fast it copies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import Cpu
from samg_fast.errors import BackendError

__all__ = ["Place", "bandwidth", "open_cpu", "open_cuda"]

Call = Callable[[], object]

_HOLD = 50_000_000  # clock cycles that a GPU is kept busy, some 30 ms: longer than it takes to queue a block


@dataclass(frozen=True, eq=False)
class Place:
    """A device, the ways of arrays to it and back, and its clock.

    Parameters
    ----------
    device : Device
        Where our operations run.
    threads : int or None
        CPU threads of theirs.
    put, get : callable
        From NumPy, and back.
    seconds : callable
        Seconds that a call takes, the mean of so many in a row, from the first to the end of the last one's work.
    queued_seconds : callable or None
        The same without the time it takes to launch kernels, where they are queued: as in a captured graph.
    copy : callable
        Prepares a copy of so many bytes, which a call then makes.
    hardware : str
        What a GPU calls itself.
    """

    device: Device
    threads: int | None
    put: Callable[[NDArray[Any]], Array]
    get: Callable[[Array], NDArray[Any]]
    seconds: Callable[[Call, int], float]
    queued_seconds: Callable[[Call, int], float] | None
    copy: Callable[[int], Call]
    hardware: str = ""

    @property
    def name(self) -> str:
        """What PyTorch calls it, too."""
        return self.device.name


def open_cpu(threads: int) -> Place:
    """Open the processor, for our kernels and for PyTorch."""
    torch.set_num_threads(threads)
    return Place(Cpu(threads), threads, np.asarray, np.asarray, _cpu_seconds, None, partial(_cpu_copy, threads))


def open_cuda(threads: int) -> Place:
    """Open the GPU, on a stream that PyTorch works on too, and what PyTorch does on the processor.

    Raises
    ------
    SamgError
        There is none, or this build has no kernels for it.
    """
    if not torch.cuda.is_available():
        raise BackendError("device cuda cannot be measured: PyTorch finds no GPU here")
    from samg_fast.devices.cuda import Cuda

    torch.set_num_threads(threads)
    stream = torch.cuda.Stream()
    torch.cuda.set_stream(stream)
    device = Cuda(stream=_wrapped(stream.cuda_stream))

    def put(array: NDArray[Any]) -> Array:
        return torch.from_numpy(array).cuda()

    def get(array: Array) -> NDArray[Any]:
        return array.cpu().numpy() if isinstance(array, torch.Tensor) else device.download(array)

    return Place(
        device,
        None,
        put,
        get,
        _cuda_seconds,
        partial(_cuda_seconds, hold=_HOLD),
        _cuda_copy,
        torch.cuda.get_device_name(),
    )


def bandwidth(place: Place, size: int) -> float:
    """Measure how fast a place copies so many bytes: bytes read and written in a second, the median of seven."""
    copy = place.copy(size)
    copy()
    return 2 * size / float(np.median([place.seconds(copy, 1) for _ in range(7)]))


def _cpu_seconds(call: Call, count: int) -> float:
    started = perf_counter()
    for _ in range(count):
        call()
    return (perf_counter() - started) / count


def _cuda_seconds(call: Call, count: int, hold: int = 0) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if hold:
        torch.cuda._sleep(hold)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


def _cpu_copy(threads: int, size: int) -> Call:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    pool = ThreadPoolExecutor(threads)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def _cuda_copy(size: int) -> Call:
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    return partial(torch.empty_like(source).copy_, source)


def _wrapped(handle: int) -> Any:
    from cuda.core import Stream

    return Stream.from_handle(handle)
