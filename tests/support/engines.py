"""What the tests of engines share: backends of the fake TensorRT on GPUs that are not there, and bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from samg_fast.backends.tensorrt import TensorRtNetwork
from samg_fast.bundle import Bundle
from samg_fast.engine_cache.key import EngineKey
from support import fake_tensorrt, gpu_machine
from support.host_cuda import HostCuda

HERE = EngineKey(
    onnx="a" * 64,
    backend="tensorrt-rtx",
    version="1.7.1",
    recipe=1,
    platform="linux x86_64",
    gpu="NVIDIA L4",
    capabilities=("8.9",),
    precision="fp16",
    batches=(1, 8),
)
"""The key of an engine for a GPU."""


def fake_backends(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Say that there are two GPUs, and return what makes a backend of TensorRT of some version on the first."""
    gpu_machine.put(monkeypatch, gpu_machine.ADA, gpu_machine.AMPERE)

    def backend(version: str = "10.13.2.6", name: str = "tensorrt", **changes: Any) -> Any:
        module = fake_tensorrt.install(monkeypatch, name, version)
        cuda = HostCuda()

        def open_engine(file: str, engine: bytes) -> TensorRtNetwork:
            return TensorRtNetwork(cuda, file, engine, backend=name)  # type: ignore[arg-type]

        plain = {"precision": "fp32", "batches": (1, 8), "index": 0, "cuda": cuda, "open_engine": open_engine}
        return SimpleNamespace(**{"name": name, "version": version, "module": module, **plain, **changes})

    return backend


def in_halves(bundle: Bundle) -> Bundle:
    """Say of a bundle that its encoder's file is one for fp16; its decoder keeps to float32."""
    halved = {"fp16": {role: bundle.file(role) for role in ("encoder", "features")}}
    return Bundle(bundle.path, replace(bundle.manifest, precisions=("fp32", "fp16"), precision_files=halved))
