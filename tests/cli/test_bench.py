"""``samg-fast bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from samg_fast.cli import app
from support.synthetic_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return write_bundle(folder, shared=True)


def test_bundles_take_turns(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    options = ["--backend", "onnxruntime,openvino", "--precision", "fp32", "--threads", "1"]
    few = ["--tasks", "walker_walk", "--frames", "2", "--rounds", "2"]
    result = CliRunner().invoke(app, ["bench", str(bundle), *options, *few, "--json", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert list(figures["results"]) == [
        "synthetic-shared, onnxruntime, fp32, threads 1",
        "synthetic-shared, openvino, fp32, threads 1",
    ]
    assert [each["frames"] for each in figures["results"].values()] == [4, 4]
    assert figures["scope"]["frames"] == 2
    assert "| synthetic-shared, openvino, fp32, threads 1 | **" in result.output


def test_what_cannot_be_opened_is_said(bundle: Path) -> None:
    options = ["--backend", "onnxruntime,tensorrt-rtx", "--precision", "fp32", "--threads", "1"]
    few = ["--tasks", "walker_walk", "--frames", "1", "--rounds", "1"]
    result = CliRunner().invoke(app, ["bench", str(bundle), *options, *few])
    assert result.exit_code == 0, result.output
    assert "Not timed: " in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--threads", "x"], "threads must be whole numbers above 0, separated by commas, not 'x'"),
        (["--tasks", "none"], "the clip pack has no task 'none'"),
        (["nowhere"], "there is no bundle 'nowhere'"),
    ],
)
def test_bad_options(options: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 1
    assert words in result.stderr
