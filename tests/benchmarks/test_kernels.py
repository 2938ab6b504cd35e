"""The benchmark of the operations: what it counts, that both contenders do the same work, and that it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.kernels import __main__ as kernels

torch = pytest.importorskip("torch", reason="the eager reference needs the extra export")

from benchmarks.eager import frame, predictor  # noqa: E402
from benchmarks.kernels.inputs import sizes_of  # noqa: E402
from benchmarks.kernels.places import Place, bandwidth, open_cpu, open_cuda  # noqa: E402
from benchmarks.kernels.work import Step, opened  # noqa: E402

OPS = [
    "preprocess",
    "similarity_map",
    "similarity_points",
    "topk_points",
    "resize_logits weighted",
    "resize_logits best",
    "prompt_assembly",
    "apply_mask",
    "frame",
]

DIFFERENCE = {
    "preprocess": 2e-6,  # values to 2.7, and a few roundings of float32
    "similarity_map": 2e-6,  # cosines: sums of some hundred products in another order
    "similarity_points": 0,
    "topk_points": 0,
    "resize_logits weighted": 3e-4,  # logits to 10; PyTorch rounds where it samples, 1e-5 of a pixel at side 1024
    "resize_logits best": 3e-4,
    "prompt_assembly": 1.3e-4,  # coordinates to 1024: one rounding of float32
    "apply_mask": 0,
    "frame": 3e-4,
}
"""The most that ours and the eager reference may differ; masks, boxes and points are the same."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Leave PyTorch the threads it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Place:
    """Open each device in turn."""
    return (open_cuda if request.param == "cuda" else open_cpu)(2)


@pytest.mark.parametrize("model", kernels.MODELS)
def test_both_do_the_same_work(model: str, place: Place) -> None:
    with opened(sizes_of(model, 84, 4), place) as steps:
        assert [step.op for step in steps] == OPS
        found = {step.op: kernels.difference(step, place) for step in steps}
    assert all(found[op] <= DIFFERENCE[op] for op in OPS), found


def test_the_official_sizes_take_the_eager_code_as_it_is() -> None:
    constants = [(frame, "GRID"), (predictor, "GRID"), (predictor, "PROMPT_SIDE")]
    before = [getattr(*each) for each in constants]
    with opened(sizes_of("l0-vits14", 16, 1), open_cpu(1)):
        assert [getattr(*each) for each in constants] == before == [64, 64, 1024]
    with opened(sizes_of("tiny", 16, 1), open_cpu(1)):
        assert [getattr(*each) for each in constants] == [24, 24, 96]
    assert [getattr(*each) for each in constants] == before


def test_bytes_and_operations_by_hand() -> None:
    place = open_cpu(1)
    with opened(sizes_of("tiny", 20, 3), place) as steps:
        moved = {step.op: kernels.moved(step, place) for step in steps}
        operations = {step.op: step.operations for step in steps}
    assert moved["preprocess"] == 20 * 20 * 3 + 4 * 3 * 96 * 96
    channels = 128 + 64  # of the embedding and of the features
    maps = 4 * (3 * channels + channels * 24 * 24)
    assert moved["similarity_map"] == maps + 4 * 3 * 20 * 20
    assert moved["similarity_points"] == maps + 4 * (3 + 1) * 2
    assert moved["topk_points"] == 4 * 3 * 20 * 20 + 4 * (3 + 1) * 2
    found = 4 * 96 * 96 + 5 * 20 * 20 + 4 + 16 + 4  # settled, logits and mask, area, box, chosen
    assert moved["resize_logits weighted"] == 4 * (3 * 96 * 96 + 3) + found
    assert moved["resize_logits best"] == 4 * (96 * 96 + 3) + found
    assert moved["prompt_assembly"] == 4 * (5 * 2 + 5 + 5 + 4) + 4 * (5 + 2) * 3
    assert moved["apply_mask"] == 2 * 20 * 20 * 3 + 20 * 20
    in_box = 4 * 12 * 12 + 4 * 2
    assert moved["frame"] == in_box + sum(
        times * moved[op]
        for op, times in {
            "preprocess": 1,
            "similarity_points": 1,
            "prompt_assembly": 3,
            "resize_logits weighted": 1,
            "resize_logits best": 2,
            "apply_mask": 1,
        }.items()
    )
    # Pictures grow: two entries an axis, and two operations to normalise; 20 rows of 96, then 96
    assert operations["preprocess"] == 3 * (4 * (20 * 96 + 96 * 96) + 2 * 96 * 96)
    # From 96 logits a side by way of 96 to 20 pixels: two entries an axis, and a comparison
    assert operations["resize_logits best"] == 4 * (20 * 96 + 20 * 20) + 20 * 20
    assert operations["prompt_assembly"] == 2 * (5 + 2)


def fake_place(queued: Any = None) -> Any:
    """Return a place on which everything takes a second."""

    def seconds(call: Any, count: int) -> float:
        call()
        return 1.0

    return SimpleNamespace(name="fake", threads=1, get=np.asarray, seconds=seconds, queued_seconds=queued)


def test_contenders_take_turns() -> None:
    turns: list[str] = []
    step = Step("op", 0, 0, lambda: turns.append("o") or {}, lambda: turns.append("e") or {})  # type: ignore[func-returns-value]
    times = kernels.measure([step], fake_place(), rounds=3)
    # Three of each to warm up, and one before each time that is taken
    assert "".join(turns) == "ooo" + "eee" + "ooee" + "eeoo" + "ooee"
    assert times["op"] == kernels.Times([1e3] * 3, [1e3] * 3, [])


def test_a_row_compares_calls_and_holds_kernels_to_the_floor() -> None:
    numbers = np.array([1.0, 2.0], np.float32)
    step = Step("op", 12, 7, lambda: {"a": numbers, "b": numbers}, lambda: {"a": torch.tensor([[1.0, 2.5]])})
    place = fake_place(queued=lambda call, count: 0.5)
    times = kernels.measure([step], place, rounds=2)
    row = kernels.row("model", step, times["op"], place, bytes_per_second=56)
    assert row == {
        "op": "op",
        "model": "model",
        "device": "fake",
        "threads": 1,
        "ms_p50": 500.0,
        "ms_iqr": [500.0, 500.0],
        "bytes": 12 + 2 * 8,
        "operations": 7,
        "floor_ms": 500.0,
        "floor_ratio": 1.0,
        "called_ms_p50": 1000.0,
        "eager_ms_p50": 1000.0,
        "ratio_vs_eager": 1.0,
        "difference": 0.5,
    }


def test_results_of_other_shapes_are_not_compared() -> None:
    step = Step("op", 0, 0, lambda: {"a": np.zeros(3)}, lambda: {"a": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"op: a is of shape \(3,\), in eager PyTorch of \(3, 3\)"):
        kernels.difference(step, fake_place())


def test_a_copy_is_a_copy() -> None:
    place = open_cpu(2)
    assert bandwidth(place, 1 << 20) > 0
    copies: list[int] = []
    counted = SimpleNamespace(seconds=lambda call, count: call() or 0.5, copy=lambda size: lambda: copies.append(size))
    assert bandwidth(counted, 1000) == 4000  # type: ignore[arg-type]
    assert copies == [1000] * 8


def test_it_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is not asked for may be missing, and is named."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "kernels.json"
    options = ["--size", "24", "--features", "2", "--threads", "1", "--rounds", "1"]
    result = CliRunner().invoke(kernels.app, [*options, "--copy-mib", "1", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "Not measured: device cuda cannot be measured" in result.output
    figures = json.loads(out.read_text())
    assert {"command", "device", "system", "commit", "versions", "gb_per_second"} < set(figures)
    assert figures["scope"] == {"size": [24, 24], "features": 2, "rounds": 1, "copy_mib": 1}
    assert [(each["model"], each["op"]) for each in figures["rows"]] == [
        (model, op) for model in kernels.MODELS for op in OPS
    ]
    for each in figures["rows"]:
        assert each["device"] == "cpu"
        assert min(each["ms_p50"], each["floor_ms"], each["ratio_vs_eager"]) > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--device", "cuda"], "device cuda cannot be measured: PyTorch finds no GPU here"),
        (["--device", "tpu"], "device must be cpu or cuda, not 'tpu'"),
        (["--models", "huge"], "there is no bundle 'huge'"),
        (["--models", "l9-vits14"], "l9"),
    ],
)
def test_it_fails_in_one_line(options: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(kernels.app, options)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
