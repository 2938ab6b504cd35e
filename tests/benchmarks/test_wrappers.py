"""The wrappers' benchmark: what it computes of known times, and that it runs from end to end."""

from __future__ import annotations

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

import json
from pathlib import Path

from typer.testing import CliRunner

from benchmarks import wrappers
from samg_fast.pipeline.stopwatch import STAGES


def test_figures_of_known_times() -> None:
    stages = {stage: [1.0, 3.0, 2.0] for stage in STAGES}
    times = wrappers.Times(
        segment=[4.0, 5.0, 100.0],
        added={mode: [0.1, 0.2, 0.05] for mode in wrappers.MODES},
        single=wrappers.Calls([40.0, 50.0, 60.0], [0.5, 1.0], stages),
        together=wrappers.Calls([20.0, 20.0, 20.0], [0.5, 0.5], {**stages, "features": []}),
    )
    figures = wrappers.summary(times, 4)
    assert figures["segment"] == 5.0
    assert figures["percent"] == dict.fromkeys(wrappers.MODES, pytest.approx(2.0))
    assert figures["single"] == 80.0
    assert figures["together"] == 200.0
    assert (figures["gain"], figures["gain_iqr"]) == (2.5, [2.25, 2.75])
    assert figures["iou"] == {"single": 0.75, "together": 0.5}
    assert figures["stages"]["single"]["encoder"] == 2.0
    assert "features" not in figures["stages"]["together"]


def test_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "wrappers.json"
    arguments = ["--backend", "openvino", "--threads", "1", "--tasks", "walker_walk,finger_spin", "--frames", "2"]
    arguments += ["--environments", "5", "--rounds", "2", "--warm-up", "1", "--json", str(path)]
    result = CliRunner().invoke(wrappers.app, arguments)
    assert result.exit_code == 0, result.output
    (figures,) = json.loads(path.read_text())["results"].values()
    assert (figures["frames"], figures["rounds"]) == (8, 2)
    assert 0 < figures["added"]["composite"] < figures["segment"]
    assert figures["iou"]["single"] == pytest.approx(figures["iou"]["together"], abs=0.01)
    assert figures["iou"]["single"] > 0.5
