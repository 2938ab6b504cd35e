"""The latency benchmark and what all programs share: turns, figures, where they come from, and runs from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import samg_fast
from benchmarks import latency as program
from benchmarks.common import Configuration
from samg_fast.bench import latency
from samg_fast.bench.contenders import choose, names, numbers, rounds_in_turn
from samg_fast.bench.provenance import heading, provenance
from samg_fast.errors import InputError
from samg_fast.pipeline.stopwatch import STAGES
from samg_fast.samples import Pack, PackTask
from support.fake_segmenter import FakeSegmenter, Masks, load_fakes, square, white


@pytest.fixture
def pack() -> Pack:
    """Return a pack with two tasks of six frames."""
    pairs = [square(4)] * 6
    frames, truths = (np.stack(part) for part in zip(*pairs, strict=True))
    frames[:, 9, 9, 0] = range(6)
    task = PackTask(frames[0], truths[0], {"video_hard": (frames, truths)})
    return Pack({"one": task, "two": task}, {"format": 1})


def test_frames_are_picked_evenly(pack: Pack) -> None:
    shown = choose(pack, "video_hard", ["two"], 3)
    assert [each.task for each in shown] == ["two"]
    assert shown[0].frames[:, 9, 9, 0].tolist() == [0, 2, 5]
    assert len(choose(pack, "video_hard", [], 100)[1].frames) == 6
    with pytest.raises(InputError, match="no task 'three': it has one, two"):
        choose(pack, "video_hard", ["three"], 1)
    with pytest.raises(InputError, match="no setting 'original': it has video_hard"):
        choose(pack, "original", [], 1)


def test_configurations_take_turns_on_the_same_frames(pack: Pack) -> None:
    turns: list[str] = []

    def finder(name: str) -> Callable[[NDArray[np.uint8]], Masks]:
        def find(frame: NDArray[np.uint8]) -> Masks:
            turns.append(name)
            return white(frame)

        return find

    segmenters: Any = {Configuration(name): FakeSegmenter(finder(name)) for name in "ab"}
    shown = choose(pack, "video_hard", [], 1)
    times = latency.measure(segmenters, shown, rounds=3, warm_up=1)
    assert "".join(turns) == "ab" + "aabb" + "bbaa" + "aabb"
    figures = latency.summary(times[Configuration("a")])
    assert figures["frames"] == 6
    assert figures["iou"] == 1.0
    assert figures["p50"] <= figures["p95"] <= figures["p99"]
    assert figures["stages"] == dict.fromkeys(STAGES, 1.0)


def test_options_are_separated_by_commas() -> None:
    assert names(" a, b,,c ") == ["a", "b", "c"]
    assert numbers("threads", "2, 1,2") == [2, 1]
    for text in ("", "two", "0", "1,-1"):
        with pytest.raises(InputError, match="threads must be whole numbers above 0, separated by commas, not "):
            numbers("threads", text)


def test_every_round_starts_with_another_contender() -> None:
    assert list(rounds_in_turn("abc", 4)) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_figures_say_where_they_come_from() -> None:
    about = provenance()
    assert set(about) == {"command", "device", "system", "commit", "versions"}
    assert about["versions"]["samg_fast"] == samg_fast.__version__
    command, _, scope, machine = heading(about, "frames").splitlines()
    assert (command, scope) == (f"`{about['command']}`", "frames")
    assert machine.startswith(f"{about['device']}; commit {about['commit'] or 'unknown'}; ")


def test_the_command_of_a_folder_s_program_is_the_one_that_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("benchmarks.gpu.__main__", None))
    monkeypatch.setattr(sys, "argv", ["…/benchmarks/gpu/__main__.py", "--batch", "8"])
    assert provenance()["command"] == "python -m benchmarks.gpu --batch 8"


@pytest.fixture
def fake_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `samg_fast.load` open fakes."""
    load_fakes(monkeypatch)


@pytest.mark.usefixtures("fake_load")
def test_latency_runs_from_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    options = ["--backend", "x,y", "--precision", "fp32,bf16", "--frames", "1", "--rounds", "2", "--warm-up", "0"]
    result = CliRunner().invoke(program.app, [*options, "--tasks", "walker_walk", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.count("this machine has no bf16") == 2
    figures = json.loads(out.read_text())
    assert set(figures["results"]) == {"fake, x, fp32", "fake, y, fp32"}
    round_of = {"setting": "video_hard", "size": [84, 84], "frames": 1, "tasks": 1}
    assert figures["scope"] == {**round_of, "rounds": 2, "warm_up": 0}
    assert len(figures["not_timed"]) == 2


@pytest.mark.usefixtures("fake_load")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--precision", "bf16"], "this machine has no bf16"),
        (["--threads", "two"], "threads must be whole numbers above 0"),
        (["--pack", "none.npz"], "cannot read the clip pack none.npz"),
        (["--tasks", "walker"], "no task 'walker'"),
    ],
)
def test_latency_fails_in_one_line(options: list[str], complaint: str) -> None:
    result = CliRunner().invoke(program.app, options)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_latency_times_a_real_segmenter(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from support.synthetic_bundle import write_bundle

    folder = write_bundle(tmp_path / "bundle", shared=True)
    out = tmp_path / "latency.json"
    options = ["--bundle", str(folder), "--backend", "onnxruntime", "--threads", "1", "--frames", "1", "--rounds", "1"]
    result = CliRunner().invoke(program.app, [*options, "--tasks", "cheetah_run", "--json", str(out)])
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(out.read_text())["results"].values()
    assert 0 < figures["stages"]["encoder"] < figures["p50"]
    assert 0 < sum(figures["stages"].values()) <= figures["p50"] * 1.05
