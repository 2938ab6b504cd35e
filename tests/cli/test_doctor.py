"""``samg-fast doctor``: what it reports about CUDA kernels, and about backends that are unverified on a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from samg_fast.cli import app
from support import fake_tensorrt, gpu_machine


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that TensorRT-RTX is installed, and TensorRT is not."""
    fake_tensorrt.install(monkeypatch, "tensorrt-rtx", "1.7.1.116")
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def asked() -> tuple[dict[str, Any], str]:
    """Return its JSON figures, and its output on one line."""
    result = CliRunner().invoke(app, ["doctor", "--json", "-"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), " ".join(result.stderr.split())


def test_a_gpu_and_no_kernels_for_it(monkeypatch: pytest.MonkeyPatch, rtx: None) -> None:
    pytest.importorskip("openvino", reason="auto takes it in the GPU's place")
    gpu_machine.put(monkeypatch, gpu_machine.ADA)
    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", None)
    figures, shown = asked()
    assert (figures["auto"], figures["auto_kind"]) == ("openvino", "cpu")
    assert figures["kernels"]["cuda"] is False
    assert "not built for CUDA: nvcc was not found, or not wanted" in shown
    assert "tensorrt-rtx cannot run: samg_fast._engine_cuda cannot be loaded (" in shown


def test_kernels_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, rtx: None) -> None:
    gpu_machine.put(monkeypatch, gpu_machine.ADA)
    genuine = importlib.import_module

    def importing(name: str, *arguments: Any) -> Any:
        if name == "samg_fast._engine_cuda":
            raise ImportError("undefined symbol: _ZN4samg")
        return genuine(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", importing)
    figures, shown = asked()
    assert figures["kernels"]["cuda_reason"] == "those built for CUDA cannot be loaded (undefined symbol: _ZN4samg)"
    assert figures["kernels"]["cuda_reason"] in shown
    assert not any(each["available"] for each in figures["backends"] if each["kind"] == "cuda")


def test_gpu_that_the_library_does_not_list(monkeypatch: pytest.MonkeyPatch, rtx: None) -> None:
    gpu_machine.put(monkeypatch, gpu_machine.H100)
    figures, shown = asked()
    (found,) = (each for each in figures["backends"] if each["name"] == "tensorrt-rtx")
    assert found["available"]
    assert found["untried"].startswith("TensorRT-RTX 1.7.1.116 names compute capabilities 8.9, 12.0, not 9.0")
    assert figures["auto"] != "tensorrt-rtx"
    assert f"auto passes over it: {found['untried']}" in shown


@pytest.mark.parametrize("trouble", ["no home", "not a folder", None])
def test_the_cache_or_why_there_is_none(trouble: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if trouble == "no home":

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    elif trouble == "not a folder":
        (tmp_path / "samg-fast").touch()
    figures, shown = asked()
    reason = {None: "", "no home": "this user has no home", "not a folder": "Not a directory; set XDG_CACHE_HOME"}[
        trouble
    ]
    assert reason in figures["cache"]["reason"]
    assert bool(figures["cache"]["reason"]) is (trouble is not None)
    assert "cache" in shown
