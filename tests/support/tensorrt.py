"""TensorRT in every dialect, on the fakes: which versions, and a fixture that opens each in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samg_fast import _engine
from support import fake_cuda, fake_tensorrt
from support.fake_cuda import ORDERS, Item

__all__ = ["LIBRARIES", "on_fakes"]

LIBRARIES = [("tensorrt", "10.13.2.6"), ("tensorrt", "11.4.0.106"), ("tensorrt-rtx", "1.7.1.116")]


@pytest.fixture(name="backend", params=LIBRARIES, ids=lambda each: "-".join(each))
def on_fakes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Pretend that there are a GPU and one of the libraries, and no engines yet."""
    name, version = request.param
    machine = fake_cuda.install(monkeypatch, _engine, launch=1, order=ORDERS[2])
    library = fake_tensorrt.install(monkeypatch, name, version)

    def enqueue(handle: int, work: Any, _reads: Any, _writes: Any) -> None:
        machine.stream(handle).push(Item("engine", work))
        machine.log.append("engine")

    library.enqueue_hook = enqueue
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(name)
