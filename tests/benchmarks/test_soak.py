"""The memory benchmark: that it runs with each wrapper, and that it sees memory grow where it does."""

from __future__ import annotations

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("dm_env", reason="dm_env is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

import json
import mmap
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from benchmarks import soak

MIB = 2**20


def test_memory_that_is_kept_is_seen() -> None:
    kept = []

    def leak() -> int:
        kept.append(mmap.mmap(-1, MIB // 8))  # from the system, as an allocator gives again what tests before freed
        kept[-1].write(bytes(MIB // 8))  # resident only once it is touched
        return 1

    read = soak.measure(leak, steps=320, warm_up=160, readings=4)
    assert [taken for taken, _ in read] == [160, 200, 240, 280, 320]
    assert soak.growth(read) == pytest.approx(20, abs=4)


def test_memory_that_is_used_again_is_no_growth() -> None:
    kept = np.ones(0, np.uint8)

    def use() -> int:
        nonlocal kept
        kept = np.ones(MIB // 8, np.uint8)
        return 1

    assert abs(soak.growth(soak.measure(use, steps=320, warm_up=160, readings=4))) < 4


def test_steps_that_are_taken_together_are_counted_each() -> None:
    taken: list[int] = []
    read = soak.measure(lambda: 4, steps=10, warm_up=0, readings=2, advance=taken.append)
    assert [step for step, _ in read] == [0, 8, 12]
    assert taken == [4, 4, 4]


def test_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    arguments = ["--backend", "openvino", "--threads", "1", "--steps", "60", "--warm-up", "20", "--readings", "2"]
    result = CliRunner().invoke(soak.app, [*arguments, "--json", str(path)])
    assert result.exit_code == 0, result.output
    results = json.loads(path.read_text())["results"]
    assert list(results) == ["gymnasium", "dm_env", "vector"]
    for figures in results.values():
        assert [taken for taken, _ in figures["resident"]] == [20, 40, 60]
        assert abs(figures["growth"]) < 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kind", "dm_env,torchrl"], "--kind must be of gymnasium, dm_env, vector, not 'torchrl'"),
        (["--steps", "10", "--warm-up", "10"], "--warm-up must be less than the 10 steps, not 10"),
    ],
)
def test_bad_options_get_a_sentence(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(soak.app, arguments)
    assert result.exit_code == 1
    assert sentence in result.output
