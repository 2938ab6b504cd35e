"""The devices that operations are tested on: a processor's instruction sets, the CUDA kernels on the host, a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import _engine
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import Cpu

try:
    from samg_fast import _engine_simt
except ImportError:
    _engine_simt = None  # type: ignore[assignment]


class Place(Protocol):
    """A device, and the way of NumPy arrays to it and back."""

    device: Device

    def put(self, array: NDArray[Any]) -> Array: ...

    def get(self, array: Array) -> NDArray[Any]: ...


class OnHost:
    """A device whose arrays are NumPy's."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def put(self, array: NDArray[Any]) -> Array:
        return array

    def get(self, array: Array) -> NDArray[Any]:
        return np.asarray(array)


class Simt(Cpu):
    """The CUDA kernels on the SIMT executor: host arrays, and no stream."""

    name = "simt"
    engine = _engine_simt

    def __init__(self) -> None:
        super().__init__(1)
        self._launch = 0


CPU_NAMES = [f"cpu-{name}" for name in _engine.instruction_sets()]
SIMT_NAMES = ["simt-forward", "simt-backward", "simt-shuffled"]
NAMES = [*CPU_NAMES, *SIMT_NAMES, pytest.param("cuda", marks=pytest.mark.gpu)]


@contextmanager
def opened(name: str) -> Iterator[Place]:
    """Open one of `NAMES`, or skip for the want of something that is named."""
    kind, _, how = name.partition("-")
    if kind == "cpu":
        before = _engine.instruction_set()
        _engine.use_instruction_set(how)
        try:
            yield OnHost(Cpu(2))
        finally:
            _engine.use_instruction_set(before)
    elif kind == "simt":
        if _engine_simt is None:
            pytest.skip("this build has no _engine_simt: build with -DSAMG_TESTS=ON")
        _engine_simt.set_order(how, 7)
        yield OnHost(Simt())
    else:
        from support.gpu_device import OnGpu

        yield OnGpu()
