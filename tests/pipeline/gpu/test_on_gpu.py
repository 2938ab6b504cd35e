"""Frames on a real GPU, with each backend: marked `gpu`.

What can run on the fake GPU does so always, so that a test that is wrong itself is found out without a GPU.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.backends import probe
from samg_fast.samples import load_pack
from samg_fast.target import Target
from support.golden_frames import GOLDEN, TASKS, assert_close, check_segmenter
from support.gpu_rigs import BATCHES, LIBRARIES, RIGS, Rig, need, open_rig
from support.paths import ROOT, TINY

HALF_MAPS = 2e-3
"""Of a similarity map's largest value, at fp16. Found in PyTorch on the processor: 2e-4, and 1e-3 at bf16."""

HALF_MARGIN = 2e-3
"""Where the second-best value is nearer than this, fp16 may pick another point."""

HALF_CORRELATION = 0.99
"""Of the first decode's logits, at fp16, found 0.9986 likewise; later decodes of random weights say nothing."""


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return open_rig(request.param, monkeypatch)


@pytest.fixture(scope="module")
def frames() -> Any:
    """Frames of the shipped pack, on which masks mean something."""
    return load_pack().tasks["walker_walk"].settings["video_hard"][0][:8]


@pytest.fixture(scope="module")
def wanted(frames: Any) -> list[list[Any]]:
    """Find each target in each frame on the processor."""
    with samg_fast.load(TINY, backend="onnxruntime", device="cpu", threads=1) as plain:
        return [[plain.segment(frame, target) for frame in frames] for target in targets_of(plain)]


def targets_of(segmenter: samg_fast.Segmenter) -> list[Target]:
    """Targets of no, one and two parts."""
    task = load_pack().tasks["walker_walk"]
    y, x = np.argwhere(task.reference_mask)[[20, -20]].T
    points = np.stack([x, y], 1)
    return [segmenter.identify(task.reference, task.reference_mask, points[:parts]) for parts in range(3)]


def test_the_processors_masks(rig: Rig, frames: Any, wanted: list[list[Any]]) -> None:
    """From the host: launched, captured, and replayed; batches of several targets, more frames than fit at once."""
    with rig.open(TINY) as segmenter:
        targets = targets_of(segmenter)
        for target, expected in zip(targets, wanted, strict=True):
            for frame, each in zip(frames, expected, strict=True):
                out = segmenter.segment(frame, target)
                rig.same(out.mask, out.score, each)
                np.testing.assert_array_equal(out.masked, frame * out.mask[..., None])
        mixed = [index % 3 for index in range(BATCHES[-1] + 2)]
        many = np.resize(frames, (len(mixed), *frames.shape[1:]))
        for _ in range(2):
            for index, out in enumerate(segmenter.segment_batch(many, [targets[each] for each in mixed])):
                rig.same(out.mask, out.score, wanted[mixed[index]][index % len(frames)])


def test_frames_that_stay_there(rig: Rig, frames: Any, wanted: list[list[Any]]) -> None:
    """On the caller's stream and without one; what came out outlives later frames, which are dropped at once."""
    with rig.open(TINY) as segmenter:
        target, expected = targets_of(segmenter)[1], wanted[1]
        there, together = [rig.put(frame) for frame in frames], rig.put(frames)  # kept until they have been read
        for stream in (rig.stream(), None):
            outs = [segmenter.segment(frame, target, stream=stream) for frame in there]
            batch = segmenter.segment_batch(together, target, stream=stream)
            for frame in there[::-1]:
                segmenter.segment(frame, target, stream=stream)
            if stream is not None:
                rig.wait(stream)
            for index, out in enumerate(outs):
                for found in (out, batch[index]):
                    mask = rig.get(found.mask)
                    rig.same(mask, found.score, expected[index])
                    np.testing.assert_array_equal(rig.get(found.masked), frames[index] * mask[..., None])


def test_the_callers_stream(rig: Rig, frames: Any, wanted: list[list[Any]]) -> None:
    """A frame that is written late is read after that; what the stream gets later comes after the frame."""
    with rig.open(TINY) as segmenter:
        target, stream = targets_of(segmenter)[0], rig.stream()
        first, second, there = rig.put(frames[0]), rig.put(frames[5]), rig.put(np.zeros_like(frames[0]))
        segmenter.segment(there, target, stream=stream)
        for turn in range(3):
            rig.write_late(there, second if turn % 2 else first, stream)
            out = segmenter.segment(there, target, stream=stream)
            rig.write_late(there, first if turn % 2 else second, stream)
            rig.wait(stream)
            rig.same(rig.get(out.mask), out.score, wanted[0][5 if turn % 2 else 0])


def test_two_segmenters(rig: Rig, frames: Any, wanted: list[list[Any]]) -> None:
    """Each has its memory; closing one leaves the other alone."""
    one, other = rig.open(TINY), rig.open(TINY)
    targets = targets_of(one)
    stream, there = rig.stream(), [rig.put(frame) for frame in frames]
    outs = [
        [segmenter.segment(frame, targets[index], stream=stream) for segmenter, index in ((one, 0), (other, 2))]
        for frame in there
    ]
    rig.wait(stream)
    one.close()
    for index, pair in enumerate(outs):
        for out, expected in zip(pair, (wanted[0], wanted[2]), strict=True):
            rig.same(rig.get(out.mask), out.score, expected[index])
    after = other.segment(frames[0], targets[2])
    rig.same(after.mask, after.score, wanted[2][0])
    other.close()


def test_sizes_take_turns(rig: Rig, frames: Any) -> None:
    """Graphs of several sizes share the networks, which are called step by step, on other memory, between replays."""
    sizes = [(84, 84), (60, 84), (72, 50)]
    with rig.open(TINY) as segmenter, samg_fast.load(TINY, backend="onnxruntime", device="cpu", threads=1) as plain:
        target = targets_of(plain)[1]
        shown = [np.ascontiguousarray(frames[index][:height, :width]) for index, (height, width) in enumerate(sizes)]
        wanted = [plain.segment(frame, target) for frame in shown]
        for turn in range(6):
            for index in np.random.default_rng(turn).permutation(len(sizes)):
                for trace in (False, True):
                    out = segmenter.segment(shown[index], target, trace=trace)
                    rig.same(out.mask, out.score, wanted[index])


@pytest.mark.parametrize("segmenters", [1, 8])
def test_eight_threads(rig: Rig, frames: Any, wanted: list[list[Any]], segmenters: int) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(rig.open(TINY)) for _ in range(segmenters)]
        targets = targets_of(opened[0])

        def run(index: int) -> list[tuple[Any, float]]:
            segmenter, found = opened[index % segmenters], []
            for _ in range(3):
                out = segmenter.segment(frames[index], targets[index % 3])
                there = segmenter.segment(rig.put(frames[index]), targets[index % 3])
                found += [(out.mask, out.score), (rig.get(there.mask), there.score)]
            return found

        with ThreadPoolExecutor(8) as pool:
            for index, found in enumerate(pool.map(run, range(8))):
                for mask, score in found:
                    rig.same(mask, score, wanted[index % 3][index])


def test_nothing_leaks(rig: Rig, frames: Any) -> None:
    """Neither the GPU's memory nor the host's grows with the frames; sizes, targets and batches change meanwhile."""
    with rig.open(TINY) as segmenter:
        targets = targets_of(segmenter)

        def run(count: int) -> None:
            for index in range(count):
                if index % 10 == 9:
                    segmenter.segment_batch(frames[:3], targets[index // 10 % 3])
                else:
                    segmenter.segment(frames[index % 8][: 84 - index % 2], targets[index // 4 % 3])

        run(120)  # every shape, with every number of parts
        used, held = rig.used(), _resident()
        run(rig.frames)
        assert rig.used() - used <= 0, "memory of the GPU"
        assert _resident() - held <= 16 << 20, "memory of the host"


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", LIBRARIES)
def test_nothing_leaks_on_the_gpu(backend: str, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results in the GPU's memory are freed when they are dropped."""
    rig = open_rig(backend, monkeypatch)
    with rig.open(TINY) as segmenter:
        target, stream, there = targets_of(segmenter)[1], rig.stream(), rig.put(frames[0])
        used = []
        for _ in range(2):
            for index in range(rig.frames // 2):
                segmenter.segment(there, target, stream=stream)
                if index % 100 == 99:
                    rig.wait(stream)
            used.append(rig.used())
        assert used[1] - used[0] <= 0


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_arrays_of_other_libraries(library: str, frames: Any, wanted: list[list[Any]]) -> None:
    """They go in without a copy through the host, and what comes out becomes theirs."""
    arrays: Any = pytest.importorskip(library, reason=f"{library} is not installed")
    ready = [status.name for status in probe() if status.available and status.device == "cuda"]
    if not ready:
        pytest.skip("no backend runs on a GPU here")
    with samg_fast.load(TINY, backend=ready[0], device="cuda") as segmenter:
        target = targets_of(segmenter)[0]
        frame = arrays.asarray(frames[0], **({"device": "cuda"} if library == "torch" else {}))
        (arrays.cuda.synchronize if library == "torch" else arrays.cuda.Device().synchronize)()
        out = segmenter.segment(frame, target)
        masked = arrays.from_dlpack(out.masked)
        on_host = masked.cpu().numpy() if library == "torch" else masked.get()
        assert (on_host.any(-1) == wanted[0][0].masked.any(-1)).mean() > 0.99


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Export the golden weights at fp32 and fp16, or take what was exported to the folder that is named."""
    pytest.importorskip("onnxscript", reason="exporting needs the extra export")
    from benchmarks.official.models import Official

    with ExitStack() as stack:
        named = os.environ.get("SAMG_TESTS_L0_VITS14")
        folder = Path(named) if named else tmp_path_factory.mktemp("official") / "bundle"
        yield Official("l0", "vits14", 2).export(folder, stack, ("fp16",), batch=None)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("task", TASKS)
def test_golden_frames(official: Path, backend: str, precision: str, task: str) -> None:
    """Compare with the official code: fp32 within the tolerances of `golden_frames`, fp16 within those above."""
    need(backend)
    with samg_fast.load(official, backend=backend, precision=precision, device="cuda", batches=(1,)) as segmenter:
        check_task(segmenter, task, half=precision == "fp16")


def check_task(segmenter: samg_fast.Segmenter, task: str, *, half: bool) -> None:
    """Compare every golden frame of a task, and the frame as it runs on a GPU with its own steps one by one."""
    with np.load(GOLDEN / f"samg_l0_dinov2_vits14_{task}.npz") as golden:
        parts = [golden[name] for name in sorted(golden.files) if name.startswith("extra_mask_image")]
        points = golden["extra_points_xy"] if len(golden["extra_points_xy"]) else ()
        target = segmenter.identify_masked_picture(
            golden["reference_image"], golden["reference_mask_image"], points, parts
        )
        for name in ("clean0", "blob0", "clean1", "blob1"):
            if half:
                check_half(segmenter, target, golden, f"frame.{name}.")
            else:
                check_segmenter(segmenter, target, golden, name)
            frame = golden[f"frame.{name}.image"]
            stepwise = segmenter.segment(frame, target, trace=True)
            at_once = segmenter.segment(frame, target)
            # The same networks on the same inputs, but for float32 rounding in the kernels between them
            assert (at_once.mask != stepwise.mask).mean() <= 0.01


def check_half(segmenter: samg_fast.Segmenter, target: Target, golden: Any, prefix: str) -> None:
    """Compare similarity maps and the first decode, whose points may differ at near ties alone."""
    trace = segmenter.segment(golden[f"{prefix}image"], target, trace=True).trace
    assert trace is not None
    kinds = [0, 0, *range(1, len(trace.similarity))]
    for call, kind in enumerate(kinds):
        assert_close(trace.similarity[kind], golden[f"{prefix}similarity{call}.map"], HALF_MAPS)
    first, points = trace.decodes[0], golden[f"{prefix}decode0.points_xy"]
    for call, (point, official) in enumerate(zip(first.points.astype(int), points, strict=True)):
        if (point != official).any():
            values = golden[f"{prefix}similarity{call}.map"]
            assert abs(values[point[1], point[0]] - values[official[1], official[0]]) <= HALF_MARGIN
            return
    low_res, wanted = first.low_res[:, ::8, ::8], golden[f"{prefix}decode0.low_res_sample"]
    assert np.corrcoef(low_res.ravel(), wanted.ravel())[0, 1] > HALF_CORRELATION


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
@pytest.mark.parametrize(
    "test", ["preprocess", "similarity_map", "topk_points", "prompt_assembly", "resize_logits", "apply_mask"]
)
def test_compute_sanitizer(tool: str, test: str) -> None:
    """The kernels' own tests, watched: no access out of bounds, no two threads at odds over shared memory."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on the PATH")
    watched = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"tests/ops/test_{test}.py"]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *watched]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", LIBRARIES)
def test_the_benchmark(backend: str, tmp_path: Path) -> None:
    need(backend)
    import json

    from typer.testing import CliRunner

    from benchmarks.gpu.__main__ import app

    out = tmp_path / "gpu.json"
    options = ["--bundle", "tiny", "--backend", backend, "--precision", "fp32", "--batch", "8"]
    scope = ["--tasks", "walker_walk", "--frames", "2", "--rounds", "1", "--warm-up", "1", "--json", str(out)]
    result = CliRunner().invoke(app, [*options, *scope])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())["results"]["84"]
    assert row["iou_fp32"]["lowest"] > 0.97
    assert row["host_us"]["p50"] <= row["on_gpu_ms"]["p50"] * 1e3


@pytest.mark.gpu
def test_the_eager_reference_on_a_gpu() -> None:
    """What everything is compared with finds on a GPU what the official code found."""
    torch = pytest.importorskip("torch", reason="the eager reference needs the extra export")
    if torch.version.cuda is None:
        pytest.skip("this PyTorch is built without CUDA")
    from benchmarks.eager.frame import EagerSamg
    from benchmarks.gpu.reference import exact_frames
    from benchmarks.official.contenders import EagerContender
    from samg_fast.bench.contenders import Shown
    from support.golden_frames import Turn, check_frame

    with np.load(GOLDEN / "samg_l0_dinov2_vits14_cartpole.npz") as golden:
        eager = EagerContender(EagerSamg("l0", "vits14", device="cuda"))
        parts = [golden[name] for name in sorted(golden.files) if name.startswith("extra_mask_image")]
        eager.targets.append(
            eager.samg.identify(
                golden["reference_image"], golden["reference_mask_image"], golden["extra_points_xy"], parts
            )
        )
        image = golden["frame.clean0.image"]
        unused = np.zeros((1, *image.shape[:2]), np.bool_)
        (out,) = exact_frames(eager, [Shown("cartpole", image, unused[0], image[None], unused)])
        turns = [
            Turn(asked.points, asked.labels, asked.box, got.iou, got.low_res, got.masks.sum(axis=(1, 2)))
            for asked, got in zip(out.prompts, out.decodes, strict=True)
        ]
        similarity = [each.cpu() for each in out.similarity]
        check_frame(golden, "clean0", similarity, turns, out.masked.transpose(1, 2, 0), maps=1e-4)
