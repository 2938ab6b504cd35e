"""The CUDA kernels compiled for real: no warnings, no spilled registers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT

ENGINE = ROOT / "engine"
SOURCES = sorted(path.name for path in (ENGINE / "cuda").glob("*.cu"))
OLDEST = 75
"""Turing: what CUDA 13 still builds for."""
HOPPER = 90

nvcc = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(nvcc is None, reason="nvcc is not installed")


def architectures() -> list[int]:
    """Return every architecture that this nvcc knows, from Turing on."""
    assert nvcc is not None
    listed = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    return [number for number in sorted(int(each) for each in re.findall(r"sm_(\d+)\b", listed)) if number >= OLDEST]


def test_sources_are_all_there() -> None:
    operations = {path.stem for path in (ENGINE / "include" / "samg").glob("*.h")} - {"types"}
    assert {Path(name).stem for name in SOURCES} == operations


@pytest.mark.parametrize("source", SOURCES)
def test_no_spills(source: str, tmp_path: Path) -> None:
    compiles_without_spills(source, [HOPPER], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_no_spills_on_any_architecture(source: str, tmp_path: Path) -> None:
    compiles_without_spills(source, architectures(), tmp_path)


def compiles_without_spills(source: str, numbers: list[int], folder: Path) -> None:
    assert nvcc is not None
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    command = [nvcc, "-O3", "-std=c++17", "--Werror=all-warnings", "-Xptxas=-v", "--threads=2", *codes]
    includes = [f"-I{ENGINE}", f"-I{ENGINE / 'include'}"]
    built = subprocess.run(
        [*command, *includes, "-c", str(ENGINE / "cuda" / source), "-o", str(folder / "out.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    report = built.stderr + built.stdout
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(spilled) >= len(codes), "ptxas said nothing of some architectures"
    assert {(int(stores), int(loads)) for stores, loads in spilled} == {(0, 0)}, report
