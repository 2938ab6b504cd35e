"""The real cuda-core, on a stub of NVIDIA's driver, in a process of its own: the tests of `on_driver_stub`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import driver_stub
from support.paths import ROOT


def test_frames_through_cuda_core(tmp_path: Path) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed: the extra cuda")
    if driver_stub.compiler() is None:
        pytest.skip("there is no C compiler: cc is not on the PATH")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).with_name("on_driver_stub.py")),
    ]
    environment = driver_stub.environment(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
