"""A machine with GPUs, as far as a backend's status asks: the driver, cuda-core and this package's kernels."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from samg_fast.backends import selection
from samg_fast.devices import driver as driver_room

H100 = driver_room.Gpu(0, "NVIDIA H100", (9, 0), 80 << 30)
ADA = driver_room.Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
AMPERE = driver_room.Gpu(1, "NVIDIA A10", (8, 6), 24 << 30)
TURING = driver_room.Gpu(0, "NVIDIA T4", (7, 5), 16 << 30)


def put(
    monkeypatch: pytest.MonkeyPatch, *found: driver_room.Gpu, driver: tuple[int, int] = (13, 0), core: bool = True
) -> None:
    """Say that there are GPUs with memory free, wherever the driver, the kernels or, if wanted, cuda-core are asked."""
    for module in (driver_room, selection):
        monkeypatch.setattr(module, "find", lambda: driver_room.Gpus(driver, found))
    monkeypatch.setattr(driver_room, "free_memory", lambda index: 1 << 30)
    put_kernels(monkeypatch)
    if core:
        module: Any = ModuleType("cuda.core")
        module.Device = lambda index: SimpleNamespace(set_current=lambda: None)
        monkeypatch.setitem(sys.modules, "cuda.core", module)


def put_kernels(monkeypatch: pytest.MonkeyPatch, version: int = 13000) -> None:
    """Say that there are kernels, built with some version of CUDA: those there are, or none that could be called."""
    name = "samg_fast._engine_cuda"
    there = sys.modules.get(name) or ModuleType(name)
    monkeypatch.setitem(sys.modules, name, there)
    monkeypatch.setattr(there, "runtime_version", version, raising=False)
