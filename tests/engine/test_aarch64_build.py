"""The engine on 64-bit ARM, as on a Jetson: cross-compiled without a warning, its C++ tests run by an emulator."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.paths import ROOT

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
DOCTEST = Path("/usr/lib/cmake/doctest")

pytest.importorskip("nanobind", reason="nanobind is not installed")
pytestmark = pytest.mark.slow
for needed in (COMPILER, EMULATOR, "cmake"):
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)
if not DOCTEST.is_dir():
    pytest.skip("doctest is not installed", allow_module_level=True)


def test_kernels_on_aarch64(tmp_path: Path) -> None:
    """The CPU kernels, the CUDA kernels on the host executor, and both modules."""
    toolchain = tmp_path / "aarch64.cmake"
    toolchain.write_text(
        "set(CMAKE_SYSTEM_NAME Linux)\n"
        "set(CMAKE_SYSTEM_PROCESSOR aarch64)\n"
        f"set(CMAKE_CXX_COMPILER {COMPILER})\n"
        f"set(CMAKE_CROSSCOMPILING_EMULATOR {EMULATOR} -L /usr/aarch64-linux-gnu)\n"
    )
    build = tmp_path / "build"
    options = {
        "CMAKE_TOOLCHAIN_FILE": toolchain,
        "CMAKE_COMPILE_WARNING_AS_ERROR": "ON",
        "Python_EXECUTABLE": sys.executable,
        "Python_INCLUDE_DIR": sysconfig.get_paths()["include"],
        "SKBUILD_PROJECT_NAME": "samg_fast",
        "SKBUILD_PROJECT_VERSION": "0",
        "SAMG_CUDA": "OFF",
        "SAMG_TESTS": "ON",
        "doctest_DIR": DOCTEST,
    }
    run("cmake", "-S", str(ROOT), "-B", str(build), *(f"-D{name}={value}" for name, value in options.items()))
    run("cmake", "--build", str(build), "--parallel", "2")
    run("ctest", "--test-dir", str(build), "--output-on-failure", "--no-tests=error")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
