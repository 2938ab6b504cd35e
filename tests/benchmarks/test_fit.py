"""The table of `benchmarks.fit`, and a run on a fitted bundle that is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.accuracy.report import Scores
from benchmarks.fit import Result, app, markdown
from samg_fast.errors import InputError
from support.rendering import needs_rendering
from support.synthetic_bundle import write_bundle, write_fitted_bundle


def scores(*ious: float) -> dict[str, Scores]:
    return {"original": Scores(np.array(ious), np.zeros((len(ious), 1, 1), bool), 0)}


def test_table() -> None:
    results = [
        Result("walker_walk", scores(0.8, 0.6), scores(0.9, 0.7), 3.25, 551.2),
        Result("hopper_stand", scores(0.5), scores(1.0), None, 551.2),
        Result("adroit_pen", scores(0.5), scores(0.25), None, 551.2),
    ]
    assert markdown(results, ["original"]).splitlines() == [
        "| task | original: teacher | fitted | worst | minutes | kB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| walker_walk | 0.700 | 0.800 | 0.700 | 3.2 | 551 |",
        "| hopper_stand | 0.500 | 1.000 | 1.000 | – | 551 |",
        "| adroit_pen | 0.500 | 0.250 | 0.250 | – | 551 |",
        "| **mean of 2: the paper's** | 0.600 | 0.900 | 0.700 | | |",
    ]
    assert results[0].to_json()["fitted"] == {"original": {"iou": 0.8, "worst": 0.7}}
    with pytest.raises(InputError, match="tasks is empty"):
        markdown([], ["original"])


@needs_rendering
def test_a_fit_that_is_there_is_measured(tmp_path: Path) -> None:
    teacher = write_bundle(tmp_path / "teacher", shared=True)
    shutil.copytree(write_fitted_bundle(tmp_path / "fitted"), tmp_path / "fits" / "walker_walk")
    options: Any = [
        "--bundle", teacher, "--fits", tmp_path / "fits", "--tasks", "walker_walk", "--settings", "original",
        "--episodes", 1, "--frames", 2, "--stride", 1, "--size", 48, "--json", tmp_path / "figures.json",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(each) for each in options])
    assert result.exit_code == 0, result.output
    assert "| walker_walk |" in result.output
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert figures["minutes"] is None
    assert 0 <= figures["fitted"]["original"]["iou"] <= 1
