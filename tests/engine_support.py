"""What the tests of engines share: backends of the fake TensorRT on GPUs that are not there, and bundles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_tensorrt
import pytest
from test_tensorrt_running import HostCuda

from samg_fast import gpus
from samg_fast.bundle import Bundle

ADA = gpus.Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
AMPERE = gpus.Gpu(1, "NVIDIA A10", (8, 6), 24 << 30)


def fake_backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Say that there are two GPUs, and return what makes a backend of TensorRT of some version on the first."""
    monkeypatch.setattr(gpus, "find", lambda: gpus.Gpus((13, 0), (ADA, AMPERE)))
    monkeypatch.setattr(gpus, "free_memory", lambda index: 1 << 30)
    core: Any = ModuleType("cuda.core")
    core.Device = lambda index: SimpleNamespace(set_current=lambda: None)
    monkeypatch.setitem(sys.modules, "cuda.core", core)

    def backend(version: str = "10.13.2.6", name: str = "tensorrt", **changes: Any) -> Any:
        module = fake_tensorrt.install(monkeypatch, name, version)
        plain = {"precision": "fp32", "batches": (1, 8), "index": 0, "cuda": HostCuda()}
        return SimpleNamespace(**{"name": name, "version": version, "module": module, **plain, **changes})

    return backend


def in_halves(bundle: Bundle) -> Bundle:
    """Say of a bundle that its encoder's file is one for fp16; its decoder keeps to float32."""
    halved = {"fp16": {role: bundle.file(role) for role in ("encoder", "features")}}
    return Bundle(bundle.path, replace(bundle.manifest, precisions=("fp32", "fp16"), precision_files=halved))
