"""The GPU benchmark: its measuring on a fake GPU, its figures, tables and bars, and its refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import samg_fast
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import measure, report
from benchmarks.gpu.measure import Times
from benchmarks.official.contenders import SegmenterContender
from samg_fast import _engine
from samg_fast.bench.contenders import Shown, choose
from samg_fast.bundle import Bundle
from samg_fast.devices import driver
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError
from samg_fast.samples import load_pack
from samg_fast.segmenter import Segmenter
from support import fake_cuda
from support.fake_cuda import Machine
from support.fixed_batch import fixed_batch
from support.host_gpu import HostBackend, open_on
from support.synthetic_bundle import write_bundle

ONCE = ("--tasks", "walker_walk", "--frames", "2", "--rounds", "2", "--warm-up", "1")
SHORT = ("--tasks", "walker_walk", "--frames", "1", "--rounds", "1", "--warm-up", "1")
WAYS = {"on_gpu_ms", "host_us", "from_host_ms", "batch_ms"}

load = samg_fast.load


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_cuda.install(monkeypatch, _engine, launch=1, order="shuffled")


@pytest.fixture
def fake_load(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bundles open on the fake GPU, whatever the backend, but for bf16; on the processor as ever."""

    def opened(bundle: str, *, backend: str = "auto", precision: str, device: str, batches: Any = (1,)) -> Segmenter:
        if device == "cpu":
            return load(bundle, backend="onnxruntime", device="cpu", precision=precision, threads=1)
        if precision == "bf16":
            raise BackendError("this GPU has no bf16")
        return open_on(bundle, HostBackend(machine, max_batch=max(batches)))

    monkeypatch.setattr(samg_fast, "load", opened)


def shown_of(*tasks: str, frames: int = 2) -> list[Shown]:
    return choose(load_pack(), "video_hard", tasks, frames)


def run(*options: str) -> Any:
    return CliRunner().invoke(gpu.app, [*options])


@pytest.mark.usefixtures("fake_load")
def test_the_whole_way_on_a_fake_gpu(bundle_folder: Path, tmp_path: Path) -> None:
    """Every figure is there, and the masks of every way are those of the processor."""
    out = tmp_path / "gpu.json"
    options = ("--backend", "onnxruntime", "--backend", "tensorrt", "--precision", "fp32", "--precision", "bf16")
    result = run(
        "--bundle", str(bundle_folder), *options, *ONCE, "--sizes", "84,40", "--batch", "3", "--json", str(out)
    )
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert found.keys() >= {"command", "device", "gpu", "driver", "commit", "versions", "scope", "batch", "results"}
    assert found["gpu"] == "a fake (8.9), 1024 GiB"
    assert found["driver"].startswith("driver for CUDA 13.0")
    assert {reason for name, reason in found["refused"].items() if name.endswith("bf16")} == {"this GPU has no bf16"}
    assert len(found["refused"]) == 2
    assert found["results"].keys() == {"84", "40"}
    for rows in found["results"].values():
        assert [row["name"].split()[0].strip(",") for row in rows] == ["onnxruntime", "tensorrt"]
        for row in rows:
            calls = {way: row[way]["calls"] for way in WAYS}
            assert calls == {"on_gpu_ms": 4, "host_us": 4, "from_host_ms": 4, "batch_ms": 2}
            for way in WAYS:
                (low, high), (slow, fast) = row[way]["iqr"], row[way]["rounds"][::-1]
                assert 0 < low <= row[way]["p50"] <= high <= row[way]["p95"] * 1.001
                assert fast <= slow
            assert row["host_us"]["p50"] < row["on_gpu_ms"]["p50"] * 1e3
            assert row["iou_fp32"] == {"mean": 1.0, "lowest": 1.0}
            assert row["iou_eager"] is row["times_eager"] is row["cosine"] is None
            assert [bar["what"] for bar in row["bars"]] == ["host, µs"]


def test_contenders_take_turns_and_are_timed_by_the_clock(machine: Machine, bundle_folder: Path) -> None:
    """What is timed ends when the GPU is done, and host time when the call returns; each starts a round in turn."""
    cuda, turns = Cuda(), []
    ours = {name: SegmenterContender(open_on(bundle_folder, HostBackend(machine))) for name in "ab"}
    work = [measure.place(cuda, each, 5) for each in shown_of("walker_walk", "finger_spin")]
    assert work[0].batch.shape == (5, 84, 84, 3)
    np.testing.assert_array_equal(work[0].batch.array, work[0].shown.frames[[0, 1, 0, 1, 0]])
    for contender in ours.values():
        measure.identify(contender, cuda, work, 1)
    for name, contender in ours.items():
        segment = contender.segmenter.segment

        def counted(frame: Any, target: Any, *, name: str = name, segment: Any = segment, **options: Any) -> Any:
            turns.append(name)
            return segment(frame, target, **options)

        contender.segmenter.segment = counted  # type: ignore[method-assign]
    seen: list[tuple[int, int]] = []  # frames launched and run, whenever somebody looks at the clock

    def clock() -> float:
        seen.append((machine.log.count("graph"), sum(name == "graph" for _, name in machine.ran)))
        return float(len(seen))

    machine.log.clear()
    machine.ran.clear()
    times = measure.measure(ours, cuda, work, rounds=3, clock=clock)
    assert ["".join(run) for _, run in itertools.groupby(turns)] == ["a" * 12, "b" * 24, "a" * 24, "b" * 12]
    for each in times.values():
        assert each.from_host == [1000.0] * 12
        assert each.host == [1000.0] * 12
        assert each.on_gpu == [2000.0] * 12
        assert each.batch == [2000.0] * 6
        assert {kind: len(values) for kind, values in each.rounds.items()} == dict.fromkeys(
            ("on_gpu", "host", "from_host", "batch"), 3
        )
    # Of one task: two looks around each of two frames from the host, then three around each call on the GPU
    one = seen[4:7]
    assert [launched for launched, _ in one] == [one[0][0], one[0][0] + 1, one[0][0] + 1]
    assert one[0] == (one[0][0], one[0][0]), "the stream is not idle when a frame begins"
    assert one[1][1] == one[0][1], "the call has waited"
    assert one[2][1] == one[2][0], "the clock was read before the GPU was done"


def test_masks_that_differ_are_seen(machine: Machine, bundle_folder: Path, tmp_path: Path) -> None:
    """Another bundle's masks, given in place of the reference's, in every way that is timed."""
    other = write_bundle(tmp_path / "other", shared=False, seed=11)
    cuda, shown = Cuda(), shown_of("walker_walk")
    work = [measure.place(cuda, each, 2) for each in shown]
    contender = SegmenterContender(open_on(bundle_folder, HostBackend(machine)))
    measure.identify(contender, cuda, work, 1)
    found = measure.masks(contender, cuda, work)
    assert [number for number, _ in found] == [0, 1] * 3
    wanted = {}
    for folder in (bundle_folder, other):
        with load(folder, backend="onnxruntime", device="cpu", threads=1) as plain:
            wanted[folder] = gpu._masks_on_the_processor(plain, shown)
    assert measure.likeness(found, wanted[bundle_folder]) == {"mean": 1.0, "lowest": 1.0}
    assert measure.likeness(found, wanted[other])["mean"] < 0.9
    for way in range(3):
        wrong = [(number, ~mask if index // 2 == way else mask) for index, (number, mask) in enumerate(found)]
        likeness = measure.likeness(wrong, wanted[bundle_folder])
        assert likeness == {"mean": pytest.approx(2 / 3), "lowest": 0.0}


def test_frames_of_another_size() -> None:
    (shown,) = shown_of("walker_walk")
    assert measure.resized(shown, 84) is shown
    small = measure.resized(shown, 42)
    assert small.frames.shape == (2, 42, 42, 3)
    assert small.reference.shape == (42, 42, 3)
    assert small.truths.dtype == small.reference_mask.dtype == np.bool_
    assert small.reference_mask.mean() == pytest.approx(shown.reference_mask.mean(), abs=0.02)
    np.testing.assert_allclose(small.frames.mean((0, 1, 2)), shown.frames.mean((0, 1, 2)), atol=2)


@pytest.fixture
def row() -> dict[str, Any]:
    """Figures of made-up times."""
    times = Times(
        on_gpu=[1.0, 2.0, 3.0],
        host=[0.04, 0.05, 0.06],
        from_host=[2.0, 4.0, 3.0],
        batch=[32.0, 64.0],
        rounds={"on_gpu": [1.5, 2.5], "host": [0.05], "from_host": [3.0], "batch": [32.0, 64.0]},
    )
    return report.figures(times, Times(from_host=[20.0, 40.0, 30.0]), 64)


def test_figures(row: dict[str, Any]) -> None:
    assert row["on_gpu_ms"] == {"p50": 2.0, "p95": 2.9, "iqr": [1.5, 2.5], "rounds": [1.5, 2.5], "calls": 3}
    assert row["host_us"]["p50"] == pytest.approx(50)
    assert row["frames_per_second"] == pytest.approx(64 / 0.048)
    assert row["times_eager"] == 10
    eager = Times(from_host=[20.0], rounds={"from_host": [20.0]})
    alone = report.figures(eager, eager, 64)
    assert alone["times_eager"] == 1
    assert alone["on_gpu_ms"] is alone["host_us"] is alone["batch_ms"] is alone["frames_per_second"] is None
    assert report.figures(eager, None, 64)["times_eager"] is None


def test_bars(row: dict[str, Any]) -> None:
    def verdicts(bundle: str, batch: int, **found: Any) -> dict[str, str]:
        return {bar["what"]: bar["verdict"] for bar in report.bars(bundle, batch, row | found)}

    assert verdicts("l0-vits14", 64) == {
        "frame on the GPU, ms": "met",
        "host, µs": "met",
        "batch of 64, frames/s": "MISSED",
        "× eager": "met",
    }
    assert verdicts("l1-vitb14", 64, on_gpu_ms={"p50": 4.01}, times_eager=9.99) == {
        "frame on the GPU, ms": "MISSED",
        "host, µs": "met",
        "× eager": "MISSED",
    }
    quick = {"on_gpu_ms": {"p50": 1.0}, "host_us": {"p50": 50.1}, "frames_per_second": 1500.0, "times_eager": None}
    assert verdicts("l0-vits14", 64, **quick) == {
        "frame on the GPU, ms": "met, and the aim",
        "host, µs": "MISSED",
        "batch of 64, frames/s": "met",
    }
    assert verdicts("l0-vits14", 8).keys() == {"frame on the GPU, ms", "host, µs", "× eager"}
    assert verdicts("tiny", 64).keys() == {"host, µs", "× eager"}


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: driver.Gpus((13, 0), reason="the NVIDIA driver sees no GPU"))
    result = run()
    assert result.exit_code == 1
    assert result.stderr == "error: this benchmark needs a GPU: the NVIDIA driver sees no GPU\n"


@pytest.mark.usefixtures("fake_load")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--device", "cpu"), "device is 'cpu', expected cuda, or cuda:1 for the second GPU and so on"),
        (("--device", "cuda:3"), "device is 'cuda:3', but there is only cuda:0 (a fake)"),
        (("--sizes", "84,0"), "sizes must be whole numbers above 0, separated by commas, not '84,0'"),
        (("--bundle", "tiny", "--exported", "x"), "exported is for official models such as l0-vits14, and bundle is"),
        (("--bundle", "tiny", "--backend", "onnxruntime", "--precision", "bf16"), "this GPU has no bf16"),
        (("--bundle", "FIXED", "--backend", "onnxruntime"), "batch is 64, but bundle synthetic takes 4 at once only"),
        (("--bundle", "nowhere", "--backend", "onnxruntime"), "nowhere"),
    ],
)
def test_failing_in_one_line(options: tuple[str, ...], complaint: str, bundle_folder: Path, tmp_path: Path) -> None:
    fixed = fixed_batch(Bundle.open(bundle_folder), tmp_path / "fixed", 4).path
    result = run(*(str(fixed) if option == "FIXED" else option for option in options))
    assert result.exit_code == 1, result.output
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("machine")
def test_no_backend_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [samg_fast.backends.BackendStatus("tensorrt", False, "it is broken", device="cuda")]
    monkeypatch.setattr(gpu, "probe", lambda: statuses)
    result = run("--bundle", "tiny")
    assert result.exit_code == 1
    assert result.stderr == "error: no backend can run on a GPU here: tensorrt: it is broken\n"


@pytest.mark.slow
@pytest.mark.usefixtures("small_models")
def test_the_eager_reference_keeps_to_its_device() -> None:
    """On a GPU, all but pictures, points and masks stays there; what it finds is what it finds on the processor."""
    from benchmarks.eager.frame import EagerSamg
    from support.tagged_device import TaggedDevice

    (shown,) = shown_of("walker_walk", frames=1)
    masked = np.where(shown.reference_mask[..., None], shown.reference, 0).astype(np.uint8)

    def frame_of(device: str) -> Any:
        eager = EagerSamg("l0", "vits14", device=device)
        target = eager.identify(shown.reference, masked, [(40, 40)])
        target = eager.adapt(target, shown.reference, shown.reference_mask, steps=2)
        return eager.segment(shown.frames[0], target)

    wanted = frame_of("cpu")
    with TaggedDevice() as tagged:
        found = frame_of("cuda")
        assert all(tagged.is_there(each) for each in (found.embedding, found.tokens, *found.similarity))
        with pytest.raises(AssertionError, match="gets tensors of both devices"):
            found.embedding + wanted.embedding
        with pytest.raises(AssertionError, match="numpy\\(\\) of a tensor on a GPU"):
            found.embedding.numpy()
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_array_equal(found.masked, wanted.masked)


@pytest.mark.slow
@pytest.mark.usefixtures("fake_load", "small_models")
def test_beside_the_eager_reference(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Official models on reproducible weights: reference, bundle and figures, all but the GPU."""
    from benchmarks.gpu import reference

    official, real, asked = reference.Official, reference.EagerSamg, []

    class WithBundle(official):  # type: ignore[misc, valid-type]
        def export(self, folder: Any, *_: Any, batch: int | None) -> Path:
            asked.append(batch)  # any batch, where the bundle that all tests share is for one frame at once
            return Path(super().export(folder, *_))

    monkeypatch.setattr(reference, "Official", WithBundle)
    monkeypatch.setattr(
        reference, "EagerSamg", lambda *models, device: asked.append(device) or real(*models, device="cpu")
    )
    monkeypatch.setattr(reference, "check_torch", lambda: None)
    out = tmp_path / "gpu.json"
    options = ("--backend", "tensorrt", "--precision", "fp32", "--batch", "1", "--exported", str(exported))
    result = run(*options, *SHORT, "--json", str(out))
    assert result.exit_code == 0, result.output
    assert asked == [None, "cuda"]
    eager, ours = json.loads(out.read_text())["results"]["84"]
    assert eager["name"] == report.EAGER
    assert eager["times_eager"] == 1
    assert eager["on_gpu_ms"] is None
    assert eager["from_host_ms"]["calls"] == ours["from_host_ms"]["calls"] == 1
    assert ours["times_eager"] == pytest.approx(eager["from_host_ms"]["p50"] / ours["from_host_ms"]["p50"])
    assert ours["cosine"] > 0.9999
    assert ours["correlation"] > 0.999
    for likeness in (eager["iou_fp32"], ours["iou_fp32"], ours["iou_eager"]):
        assert 0.8 < likeness["lowest"] <= likeness["mean"] + 1e-12 <= 1 + 1e-12  # the mean of equal ones is rounded
    assert [bar["what"] for bar in ours["bars"]] == ["frame on the GPU, ms", "host, µs", "× eager"]


@pytest.mark.usefixtures("machine")
def test_without_a_pytorch_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the eager reference needs the extra export")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "_backends", lambda _: {"tensorrt": ""})
    result = run("--bundle", "l0-vits14")
    assert result.exit_code == 1
    assert "the eager reference runs in PyTorch on the GPU, but torch" in result.stderr
    assert result.stderr.count("\n") == 1
