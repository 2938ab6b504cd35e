"""Comparing with PyTorch: what the figures are made of, and the whole way on models made small."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import adaptation, compare
from benchmarks.compare_tiny import compare_tiny
from benchmarks.official.agreement import Agreement, agreement, cosine
from benchmarks.official.contenders import Seen, painted
from samg_fast.errors import BackendError, BundleError
from samg_fast.pipeline.stopwatch import STAGES

RANDOM = np.random.default_rng(0)
EMBEDDING = RANDOM.standard_normal((4, 8, 8)).astype(np.float32)
TOKENS = RANDOM.standard_normal((6, 4, 4)).astype(np.float32)
LOGITS = RANDOM.standard_normal((3, 3, 16, 16)).astype(np.float32)

ONCE = ("--tasks", "walker_walk", "--rounds", "1", "--warm-up", "1")

KEYS = {"name", "precision", "ms_p50", "ratio_vs_eager", "agreement"}
PROVENANCE = {"command", "device", "system", "commit", "versions"}


class FakeContender:
    """Sees what the reference sees, plus noise."""

    def __init__(self, noise: float = 0.0, frame: Callable[[], None] = lambda: None) -> None:
        self.noise, self.each_frame = noise, frame
        self.tasks = 0

    def identify(self, image: Any, mask: Any) -> None:
        self.tasks += 1

    def frame(self, task: int, frame: Any) -> dict[str, float]:
        assert 0 <= task < self.tasks
        self.each_frame()
        return dict.fromkeys((*STAGES, "total"), 1.0)

    def look(self, frame: Any, prompts: Sequence[Any], embedding: Any) -> Seen:
        assert list(prompts) == ["first", "second", "third"]
        random = np.random.default_rng(1)
        noisy = [each + self.noise * random.standard_normal(each.shape) for each in (EMBEDDING, TOKENS, *LOGITS)]
        assert embedding is EMBEDDING
        return Seen(noisy[0], noisy[1], noisy[2:], list(LOGITS))


class FakeOfficial:
    """Stands for `benchmarks.official.models.Official`: int8 is damaged, bf16 cannot run."""

    exported = 0

    def __init__(self, *_: Any) -> None:
        self.opened: list[str] = []

    def export(self, folder: Path | None, stack: ExitStack, kinds: Any) -> Path:
        FakeOfficial.exported += 1
        return Path("bundle")

    def open(self, kind: str, bundle: Path, stack: ExitStack) -> FakeContender:
        self.opened.append(kind)
        if kind == "bf16":
            raise BackendError("this machine has no bf16")
        return FakeContender(2.0 if kind == "int8" else 0.0)

    def reference(self, task: int, frame: Any) -> Any:
        tensor = SimpleNamespace
        return SimpleNamespace(
            prompts=["first", "second", "third"],
            decodes=[SimpleNamespace(low_res=each) for each in LOGITS],
            embedding=tensor(numpy=lambda: EMBEDDING),
            tokens=tensor(numpy=lambda: TOKENS),
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare fakes."""
    monkeypatch.setattr(compare, "_official", FakeOfficial)
    monkeypatch.setattr(compare, "_PAUSE", 0)


def run(*options: str) -> Any:
    return CliRunner().invoke(compare.app, ["--rounds", "2", "--tasks", "walker_walk,cheetah_run", *options])


@pytest.mark.usefixtures("fake")
def test_every_contender_gets_a_row(tmp_path: Path) -> None:
    result = run("--json", str(tmp_path / "compare.json"))
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "compare.json").read_text())
    assert figures.keys() == {"rows", "threads", "scope"} | PROVENANCE
    rows = figures["rows"]
    assert [(row["name"], row["precision"]) for row in rows] == [
        ("PyTorch, eager", "fp32"),
        ("PyTorch, torch.compile", "fp32"),
        ("ONNX Runtime", "fp32"),
        ("samg-fast, OpenVINO", "fp32"),
        ("samg-fast, OpenVINO", "bf16"),
        ("samg-fast, OpenVINO", "fp16"),
        ("samg-fast, OpenVINO", "int8"),
    ]
    assert all(row.keys() >= KEYS for row in rows)
    assert rows[0]["ratio_vs_eager"] == 1
    assert rows[0]["frames"] == 4
    assert rows[3]["agreement"] == pytest.approx(1)
    assert rows[3]["logits_correlation"] == pytest.approx(1)
    assert rows[4]["reason"] == "this machine has no bf16"
    assert rows[4]["ms_p50"] is rows[4]["agreement"] is None
    assert rows[6]["agreement"] < 0.8
    assert rows[6]["logits_correlation"] == pytest.approx(1)
    assert rows[6]["logits_correlation_whole"] < 0.8


@pytest.mark.usefixtures("fake")
def test_only_what_is_wanted_runs(tmp_path: Path) -> None:
    FakeOfficial.exported = 0
    assert run("--only", "compile", "--json", str(tmp_path / "compare.json")).exit_code == 0
    assert FakeOfficial.exported == 0
    rows = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["PyTorch, eager", "PyTorch, torch.compile"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--only", "fp32,int4"), "only takes eager, compile, onnxruntime, fp32, bf16, fp16, int8, not 'int4'"),
    ],
)
def test_failing_in_one_line(options: tuple[str, ...], complaint: str) -> None:
    result = run(*options)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_PAUSE", 0)
    turns: list[str] = []
    contenders: Any = {name: FakeContender(frame=lambda name=name: turns.append(name)) for name in "ab"}
    for each in contenders.values():
        each.identify(None, None)
    shown: Any = [SimpleNamespace(frames=[1, 2])]
    times = compare.measure(contenders, shown, rounds=3)
    assert "".join(turns) == "aabb" + "bbaa" + "aabb"
    assert len(times["a"].total) == 6
    assert times["b"].stages == {stage: [1.0] * 6 for stage in STAGES}


def test_a_row_is_of_the_worst_frame() -> None:
    eager = compare.Times(total=[100.0, 300.0, 200.0])
    times = compare.Times([40.0, 60.0], {stage: [2.0, 4.0] for stage in STAGES})
    row = compare.row("int8", times, Agreement([0.999, 0.99], [1.0, 0.995], [0.8, 0.6], [1.0, 0.9]), eager)
    assert row["ratio_vs_eager"] == 4
    assert row["agreement"] == row["cosine_embedding"] == 0.99
    assert (row["logits_correlation"], row["logits_correlation_whole"]) == (0.95, pytest.approx(0.7))
    assert row["stages"]["encoder"] == 3
    bars = {what: (least, value) for what, least, value in compare.bars([row])}
    assert bars["int8, the fastest reduced precision, times as fast as eager"] == (3.5, 4)
    assert bars["int8, cosine of maps"] == (0.98, 0.99)
    assert bars["int8, correlation of the decoder's logits"] == (0.99, 0.95)
    assert cosine(EMBEDDING, -2 * EMBEDDING) == pytest.approx(-1)


def test_painted_masks_are_white_on_the_target() -> None:
    mask = np.eye(3, dtype=np.bool_)
    assert painted(mask).dtype == np.uint8
    np.testing.assert_array_equal(painted(mask), np.where(mask[..., None], 255, 0).repeat(3, axis=-1))


def test_human_points_lie_on_the_target() -> None:
    mask = np.zeros((8, 9), np.bool_)
    mask[2:6, 3:8] = True
    points = adaptation.human_points(mask, 3)
    assert len({tuple(point) for point in points.tolist()}) == 3
    assert mask[points[:, 1], points[:, 0]].all()
    assert adaptation.human_points(mask, 0).shape == (0, 2)


def test_the_shipped_bundle_keeps_its_masks_in_every_precision() -> None:
    pytest.importorskip("openvino")
    rows = compare_tiny(["fp32", "bf16", "fp16", "int8"], threads=2, tasks=["walker_walk", "finger_spin"])
    assert [row["precision"] for row in rows] == ["fp32", "bf16", "fp16", "int8"]
    assert rows[0]["agreement"] == 1
    assert rows[0]["accuracy_lost"] == 0
    for row in rows:
        assert row.keys() >= KEYS
        if "reason" not in row:  # the processor has no bfloat16
            assert row["agreement"] >= 0.97
            assert row["accuracy_lost"] <= 0.01


def test_adapting_the_shipped_bundle(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "adaptation.json"
    result = CliRunner().invoke(adaptation.app, ["--tiny", "--rounds", "1", "--json", str(out)])
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    (row,) = figures["rows"]
    assert row.keys() == {"bundle", "seconds", "bar_seconds", "weights"}
    assert sum(row["weights"]) == pytest.approx(1, abs=1e-5)
    assert figures.keys() >= PROVENANCE


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_the_whole_way(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported bundle agrees with the reference; a compiler that fails, and files that are missing, are rows."""
    import torch

    def broken(*_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    out, before = tmp_path / "compare.json", (exported / "manifest.json").stat().st_mtime_ns
    result = run("--only", "compile,onnxruntime,fp32,int8", "--bundle", str(exported), "--json", str(out), *ONCE)
    assert result.exit_code == 0, result.output
    assert (exported / "manifest.json").stat().st_mtime_ns == before  # the bundle was used again
    eager, compiled, runtime, ours, int8 = json.loads(out.read_text())["rows"]
    for row in (eager, runtime, ours):
        assert row["ms_p50"] > 0
        assert row["agreement"] > 0.9999
        assert row["logits_correlation"] > 0.999
        assert row["logits_correlation_whole"] > 0.999
        assert sum(row["stages"].values()) <= row["ms_p95"] * 1.05
    assert eager["ratio_vs_eager"] == 1
    assert compiled["reason"] == "torch.compile failed: RuntimeError: no C++ compiler"
    assert "has files for fp32 only" in int8["reason"]


@pytest.mark.usefixtures("small_models")
def test_a_refused_precision_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import samg_fast.export
    from benchmarks.official import models as official

    asked = []

    def refuse(*_: Any, precision: Sequence[str], **_options: Any) -> None:
        asked.append(list(precision))
        if "int8" in precision:
            raise BundleError("encoder at int8 does not agree with PyTorch")

    monkeypatch.setattr(samg_fast.export, "export_bundle", refuse)
    monkeypatch.setattr(official, "PRECISIONS", ("fp32", "bf16", "int8"))
    with ExitStack() as stack:
        models = official.Official("l0", "vits14", 2)
        folder = models.export(tmp_path / "bundle", stack, ("bf16", "int8"))
        assert asked == [["fp32", "bf16", "int8"], ["fp32", "bf16"]]
        with pytest.raises(BundleError, match="encoder at int8 does not agree"):
            models.open("int8", folder, stack)


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_a_bundle_of_other_weights_is_found_out(exported: Path) -> None:
    """It is refused by its source; and were it not, it would not agree."""
    import torch

    from benchmarks.official.models import Official

    with ExitStack() as stack:
        official = Official("l0", "vits14", 2)
        with torch.no_grad():
            for weight in (official.eager.samg.sam.image_encoder.neck, official.eager.samg.dino.norm):
                for parameter in weight.parameters():
                    parameter.mul_(-1)
        with pytest.raises(ValueError, match="is a bundle of other weights"):
            official.export(exported, stack)
        picture, mask = np.full((84, 84, 3), 90, np.uint8), np.zeros((84, 84), np.bool_)
        picture[20:60, 30:50], mask[20:60, 30:50] = (200, 120, 40), True
        official.eager.identify(picture, mask)
        contender = official.open("onnxruntime", exported, stack)
        found = agreement([(picture, official.reference(0, picture))], contender)
    assert min(found.embedding) < 0.9
    assert min(found.tokens) < 0.9
    assert min(found.logits) < 0.9


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_adapting_the_official_way(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "adaptation.json"
    options = ["--bundle", str(exported), "--rounds", "1", "--steps", "2", "--json", str(out)]
    result = CliRunner().invoke(adaptation.app, options)
    assert result.exit_code == 0, result.output
    row = json.loads(out.read_text())["rows"][1]
    assert row["bundle"] == "l0-vits14"
    assert row["steps"] == 2
    assert sum(row["official_weights"]) == pytest.approx(1, abs=1e-5)
    assert row["difference"] == pytest.approx(
        max(abs(a - b) for a, b in zip(row["weights"], row["official_weights"], strict=True))
    )
