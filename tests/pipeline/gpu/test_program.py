"""A frame on a GPU, on a fake one that runs everything late: the same masks, in order, without waiting."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import _engine
from samg_fast.bundle import Bundle, write_manifest
from samg_fast.devices import cuda as cuda_device
from samg_fast.errors import BackendError, InputError, InputTypeError
from samg_fast.results import Segmentation
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from support import fake_cuda
from support.fake_cuda import ORDERS, Machine, OnGpu, Stream
from support.fixed_batch import fixed_batch
from support.host_gpu import HostBackend, noise, open_on
from support.synthetic_bundle import picture


@pytest.fixture(params=ORDERS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_cuda.install(monkeypatch, _engine, launch=1, order=request.param)


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_cuda.install(monkeypatch, _engine, launch=1)


def opened(machine: Machine, folder: Path, **options: Any) -> Segmenter:
    return open_on(folder, HostBackend(machine, **options))


def targets_of(segmenter: Segmenter) -> list[Target]:
    """Targets of no, one and two parts."""
    image, mask = picture(60, 80)
    return [segmenter.identify(image, mask, points=[(40, 30), (35, 25)][:parts]) for parts in range(3)]


def same(found: Any, wanted: Segmentation) -> None:
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert found.box == wanted.box
    assert found.score == pytest.approx(wanted.score, abs=1e-5)


def host(array: Any) -> Any:
    """Read the fake's memory; whatever is queued has been waited for."""
    return array.array.copy()


@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_the_same_masks(
    machine: Machine, bundle_folder: Path, shared_folder: Path, shared: bool, capturable: bool
) -> None:
    """Launched one by one, captured, and replayed with other frames and other targets."""
    folder = shared_folder if shared else bundle_folder
    frames = noise(3, 50, 70)
    with samg_fast.load(folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        targets = targets_of(plain)
        wanted = [[plain.segment(frame, target) for frame in frames] for target in targets]
    with opened(machine, folder, capturable=capturable) as segmenter:
        for target, expected in zip(targets, wanted, strict=True):
            for _ in range(2):
                for frame, each in zip(frames, expected, strict=True):
                    out = segmenter.segment(frame, target)
                    same(out, each)
                    np.testing.assert_array_equal(out.frame, frame)
                    np.testing.assert_array_equal(out.masked, each.masked)


def test_targets_are_the_same(forward: Machine, bundle_folder: Path) -> None:
    with samg_fast.load(bundle_folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        wanted = targets_of(plain)
    for found, expected in zip(targets_of(opened(forward, bundle_folder)), wanted, strict=True):
        np.testing.assert_allclose(found.all_sam, expected.all_sam, atol=1e-6)
        np.testing.assert_allclose(found.all_dino, expected.all_dino, atol=1e-6)


def test_a_trace_is_the_hosts(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    frame, target = noise(50, 70), targets_of(segmenter)[1]
    traced = segmenter.segment(frame, target, trace=True)
    assert traced.trace is not None
    same(segmenter.segment(frame, target), traced)


def test_batches(machine: Machine, bundle_folder: Path) -> None:
    """Targets with different numbers of parts side by side; more frames than the networks take go in turns."""
    frames = noise(5, 40, 60)
    with samg_fast.load(bundle_folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        targets = [targets_of(plain)[index] for index in (2, 0, 1, 0, 2)]
        wanted = plain.segment_batch(frames, targets)
    backend = HostBackend(machine, max_batch=3)
    segmenter = open_on(bundle_folder, backend)
    for _ in range(2):
        for found, expected in zip(segmenter.segment_batch(frames, targets), wanted, strict=True):
            same(found, expected)
    assert {batch for network in backend.opened for batch in network.batches} == {1, 2, 3}  # 1 to check the networks


def test_a_fixed_batch(machine: Machine, bundle_folder: Path, tmp_path: Path) -> None:
    folder = fixed_batch(Bundle.open(bundle_folder), tmp_path / "fixed", 4).path
    frames = noise(6, 40, 60)
    with samg_fast.load(folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        target = targets_of(plain)[1]
        wanted = [plain.segment(frame, target) for frame in frames]
    segmenter = opened(machine, folder)
    for found, expected in zip(segmenter.segment_batch(frames, target), wanted, strict=True):
        same(found, expected)
    some = segmenter.segment_batch(OnGpu(frames[:3]), target)
    assert len(some) == 3
    for index in range(3):
        same_on_gpu(some[index], wanted[index])


def same_on_gpu(found: Any, wanted: Segmentation) -> None:
    assert found.box == wanted.box
    assert found.score == pytest.approx(wanted.score, abs=1e-5)
    np.testing.assert_array_equal(host(found.mask), wanted.mask)
    np.testing.assert_array_equal(host(found.masked), wanted.masked)


@pytest.mark.parametrize(("threshold", "present"), [(0.0, True), (1.0, False), (None, True)])
def test_present(forward: Machine, bundle_folder: Path, tmp_path: Path, threshold: float | None, present: bool) -> None:
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    write_manifest(folder, replace(Bundle.open(folder).manifest, present=threshold))
    segmenter = opened(forward, folder)
    image, mask = picture(50, 70)
    target = segmenter.identify(image, mask)
    found = segmenter.segment(image, target)
    assert 0 < found.score < 1
    assert found.mask.any()
    assert found.present is present
    assert segmenter.segment(OnGpu(image), target).present is present
    assert [each.present for each in segmenter.segment_batch(OnGpu(np.stack([image] * 2)), target)] == [present] * 2


@pytest.mark.parametrize("streamed", [True, False])
def test_frames_that_stay_on_the_gpu(machine: Machine, bundle_folder: Path, streamed: bool) -> None:
    frames = noise(4, 50, 70)
    segmenter = opened(machine, bundle_folder)
    targets = targets_of(segmenter)
    wanted = [segmenter.segment(frame, targets[1]) for frame in frames]
    caller = Stream(machine)
    stream = caller if streamed else None
    outs = [segmenter.segment(OnGpu(frame), targets[1], stream=stream) for frame in frames]
    batch = segmenter.segment_batch(OnGpu(frames), targets[1], stream=stream)
    if streamed:
        caller.sync()
    # Before a score is asked for, which would wait
    np.testing.assert_array_equal(host(batch.mask), [each.mask for each in wanted])
    for out, expected in zip(outs, wanted, strict=True):
        same_on_gpu(out, expected)
    assert len(batch) == 4
    assert batch.mask.shape == (4, 50, 70)
    assert batch.masked.shape == (4, 50, 70, 3)
    for index, expected in enumerate(wanted):
        same_on_gpu(batch[index], expected)
        same_on_gpu(batch[index - 4], expected)
    with pytest.raises(IndexError, match="index 4 of 4 frames"):
        batch[4]


def test_the_callers_stream_comes_first_and_waits(machine: Machine, bundle_folder: Path) -> None:
    """A frame that is written on the caller's stream is read after that, and what reads the mask there comes later."""
    segmenter = opened(machine, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target)
    caller = Stream(machine)
    late, seen = np.zeros_like(frame), np.zeros_like(wanted.mask)
    caller.push(fake_cuda.Item("write", lambda: late.__setitem__(slice(None), frame)))
    out = segmenter.segment(OnGpu(late), target, stream=caller)
    caller.push(fake_cuda.Item("read", lambda: seen.__setitem__(slice(None), host(out.mask))))
    caller.push(fake_cuda.Item("overwrite", lambda: late.fill(0)))
    caller.sync()
    np.testing.assert_array_equal(seen, wanted.mask)


def test_what_the_frames_library_still_writes(machine: Machine, bundle_folder: Path) -> None:
    """Without a stream, the library whose array it is has the frame wait for its own."""
    segmenter = opened(machine, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target)
    library, late = Stream(machine), np.zeros_like(frame)
    library.push(fake_cuda.Item("write", lambda: late.__setitem__(slice(None), frame)))
    same_on_gpu(segmenter.segment(OnGpu(late, stream=library), target), wanted)


def test_asking_for_a_score_again_takes_no_memory(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[1], OnGpu(noise(50, 70))
    outs = [segmenter.segment(frame, target) for _ in range(3)]
    before = len(forward.memory)
    assert len({out.score for out in outs}) == 1
    assert len(forward.memory) == before


def test_memory_is_freed_after_its_last_reader(machine: Machine, bundle_folder: Path) -> None:
    """Whoever drops a mask may still have queued something that reads it."""
    segmenter = opened(machine, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target)
    caller = Stream(machine)
    seen = np.zeros_like(wanted.mask)
    out = segmenter.segment(OnGpu(frame), target, stream=caller)
    there = out.mask.array
    caller.push(fake_cuda.Item("read", lambda: seen.__setitem__(slice(None), there)))
    del out
    segmenter.segment(frame, target)
    caller.sync()
    np.testing.assert_array_equal(seen, wanted.mask)


def test_results_outlive_later_frames(machine: Machine, bundle_folder: Path) -> None:
    """What came out is the caller's: later frames, and what else is freed, leave it alone."""
    segmenter = opened(machine, bundle_folder)
    target, frames = targets_of(segmenter)[1], noise(6, 50, 70)
    wanted = [segmenter.segment(frame, target) for frame in frames]
    caller = Stream(machine)
    kept = [segmenter.segment(OnGpu(frames[0]), target, stream=caller)]
    for frame in frames[1:]:
        segmenter.segment(OnGpu(frame), target, stream=caller)  # dropped at once
    one = segmenter.segment_batch(OnGpu(frames[:2]), target, stream=caller)[1]
    segmenter.segment(OnGpu(frames[5]), target)
    caller.sync()
    same_on_gpu(kept[0], wanted[0])
    same_on_gpu(one, wanted[1])


FRAME = [
    "preprocess",
    "features.onnx",
    "encoder.onnx",
    "similarity_map",
    *["topk_points"] * 2,
    *["prompt_assembly", "decoder.onnx", "resize_logits", "topk_points"],
    *["prompt_assembly", "decoder.onnx", "resize_logits"],
    *["prompt_assembly", "decoder.onnx", "resize_logits"],
    "apply_mask",
]


def test_what_is_launched(forward: Machine, bundle_folder: Path) -> None:
    """Every launch of a frame once and in order, the two encoders on two streams; then one graph instead."""
    segmenter = opened(forward, bundle_folder, capturable=False)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    segmenter.segment(frame, target)
    for _ in range(2):
        forward.log.clear()
        forward.ran.clear()
        segmenter.segment(frame, target)
        assert forward.log == ["set_current", "copy", *FRAME, "copy", "sync"]
        streams = {name: stream for stream, name in forward.ran}
        assert streams["features.onnx"] != streams["encoder.onnx"] == streams["decoder.onnx"]
    captured = opened(forward, bundle_folder)
    captured.segment(frame, target)
    forward.log.clear()
    forward.ran.clear()
    captured.segment(frame, target)
    assert forward.log == ["set_current", "copy", "graph", "copy", "sync"]
    inside = [name for _, name in forward.ran if name not in ("copy", "graph")]
    assert sorted(inside) == sorted(FRAME)


def test_the_host_does_not_wait_in_a_frame(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[1], OnGpu(noise(50, 70))
    caller = Stream(forward)
    segmenter.segment(frame, target, stream=caller)
    forward.log.clear()
    outs = [segmenter.segment(frame, target, stream=caller) for _ in range(5)]
    assert "sync" not in forward.log
    assert forward.log.count("graph") == 5
    assert forward.log.count("allocate") == 5  # what comes out is the caller's
    outs[-1].score  # noqa: B018 (asking waits)
    assert "sync" in forward.log


def test_a_graph_for_every_shape(forward: Machine, bundle_folder: Path) -> None:
    """Height, width, batch and parts; nothing else, and each once."""
    segmenter = opened(forward, bundle_folder, max_batch=2)
    targets = targets_of(segmenter)
    twin = targets_of(segmenter)[1]
    frames = segmenter._on_gpu
    assert frames is not None
    for count, (batch, size, target) in enumerate(
        [(1, (40, 60), 1), (2, (40, 60), 1), (1, (60, 40), 1), (1, (40, 61), 1), (1, (40, 60), 2)], 1
    ):
        for _ in range(2):
            segmenter.segment_batch(noise(batch, *size), targets[target])
        assert len(frames._prepared) == count
    segmenter.segment(noise(40, 60), twin)
    assert len(frames._prepared) == 5
    shapes = [tuple(shape) for shape in frames._prepared]
    assert sorted(shapes) == sorted([(1, 40, 60, 2), (2, 40, 60, 2), (1, 60, 40, 2), (1, 40, 61, 2), (1, 40, 60, 3)])
    assert all(ready.program.captured for ready in frames._prepared.values())


def test_sizes_without_end(forward: Machine, bundle_folder: Path) -> None:
    """Only so many programs are kept; one that was dropped is made again."""
    segmenter = opened(forward, bundle_folder)
    target = targets_of(segmenter)[0]
    wanted = segmenter.segment(noise(20, 20), target)
    for width in range(21, 41):
        segmenter.segment(noise(20, width), target)
    assert segmenter._on_gpu is not None
    assert len(segmenter._on_gpu._prepared) == 16
    same(segmenter.segment(noise(20, 20), target), wanted)


def test_tables_of_more_sizes_than_are_kept(
    forward: Machine, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame's first run throws out others' tables, and never one that its own capture needs."""
    monkeypatch.setattr(cuda_device, "_MAX_CONSTANTS", 20)
    segmenter = opened(forward, bundle_folder)
    target = targets_of(segmenter)[0]
    sizes = [(20 + index, 30 + index) for index in range(12)]
    with samg_fast.load(bundle_folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        wanted = [plain.segment(noise(*size), target) for size in sizes]
    for _ in range(2):
        for size, expected in zip(sizes, wanted, strict=True):
            same(segmenter.segment(noise(*size), target), expected)
    assert segmenter._on_gpu is not None
    assert all(ready.program.captured for ready in segmenter._on_gpu._prepared.values())
    assert len(segmenter._on_gpu._cuda._constants) == 20


def test_a_capture_that_the_gpu_refuses(
    forward: Machine, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, and frames of that shape are whole, launch by launch."""
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target, trace=True)
    end = fake_cuda.GraphBuilder.end_building

    def refuses(self: fake_cuda.GraphBuilder) -> None:
        end(self)
        raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    with monkeypatch.context() as patched:
        patched.setattr(fake_cuda.GraphBuilder, "end_building", refuses)
        patched.setattr(fake_cuda.GraphBuilder, "close", refuses)
        for _ in range(3):
            same(segmenter.segment(frame, target), wanted)
    same(segmenter.segment(frame, target), wanted)
    assert "graph" not in forward.log
    (said,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert said == (
        "a frame cannot be captured as a CUDA graph: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED; "
        "frames like these, 1 of 70 x 50 pixels, are launched step by step, which is slower"
    )
    segmenter.segment(frame[:40], target)
    segmenter.segment(frame[:40], target)
    assert forward.log.count("graph") == 1, "other shapes are captured"


def test_the_arena_grows(machine: Machine, bundle_folder: Path) -> None:
    """What fits into the memory of the beginning takes none; more frames, or larger ones, do so once."""
    segmenter = opened(machine, bundle_folder, max_batch=2)
    small, large, wide = noise(2, 50, 70), noise(2, 400, 500), noise(2, 300, 700)
    with samg_fast.load(bundle_folder, backend="onnxruntime", threads=1, device="cpu") as plain:
        target = targets_of(plain)[1]
        wanted = {id(frames): plain.segment_batch(frames, target) for frames in (small, large, wide)}
    machine.log.clear()
    allocated = []
    for frames in (small, large, small, wide, large, small):
        for found, expected in zip(segmenter.segment_batch(frames, target), wanted[id(frames)], strict=True):
            same(found, expected)
        allocated.append(machine.log.count("allocate"))
    tables = allocated[0]  # of the kernels, which are not in the arena
    assert tables < allocated[1]
    memory = segmenter._on_gpu._arena  # type: ignore[union-attr]
    for frames in (wide, small, large):
        segmenter.segment_batch(frames, target)
    assert segmenter._on_gpu._arena is memory  # type: ignore[union-attr]
    assert machine.log.count("allocate") == allocated[-1]


def test_targets_are_written_when_they_change(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    first, second = targets_of(segmenter)[1], targets_of(segmenter)[1]
    frame = noise(50, 70)
    copies = []
    for target in (first, first, second, second, first):
        forward.log.clear()
        segmenter.segment(frame, target)
        copies.append(forward.log.count("copy"))
    assert copies[1:] == [2, 3, 2, 3]


def test_two_segmenters_share_nothing(machine: Machine, bundle_folder: Path, shared_folder: Path) -> None:
    one, other = opened(machine, bundle_folder), opened(machine, shared_folder)
    targets = targets_of(one)[1], targets_of(other)[2]
    frames = noise(4, 50, 70)
    alone = [
        [one.segment(frame, targets[0]) for frame in frames],
        [other.segment(frame, targets[1]) for frame in frames],
    ]
    caller = Stream(machine)
    outs = [
        [
            segmenter.segment(OnGpu(frame), target, stream=caller)
            for segmenter, target in zip((one, other), targets, strict=True)
        ]
        for frame in frames
    ]
    caller.sync()
    for index, (mine, others) in enumerate(outs):
        same_on_gpu(mine, alone[0][index])
        same_on_gpu(others, alone[1][index])
    one.close()
    same(other.segment(frames[0], targets[1]), alone[1][0])


def test_bad_input(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder, max_batch=2)
    target, frame = targets_of(segmenter)[0], noise(50, 70)
    with pytest.raises(InputError, match=r"frame must be a .* in the memory of GPU 0, and is on another device"):
        segmenter.segment(OnGpu(frame, device_id=1), target)
    with pytest.raises(InputTypeError, match=r"frame must be a \(H, W, 3\) uint8 RGB array .*, not float32 of shape"):
        segmenter.segment(OnGpu(frame.astype(np.float32)), target)
    with pytest.raises(
        InputError, match=r"frame must be a \(H, W, 3\) uint8 RGB array .*, not uint8 of shape \(50, 70\)"
    ):
        segmenter.segment(OnGpu(frame[..., 0].copy()), target)
    with pytest.raises(InputError, match="frame must be in C order"):
        segmenter.segment(OnGpu(frame[:, ::2]), target)
    with pytest.raises(InputError, match="frames must be at most 2 in a GPU's memory"):
        segmenter.segment_batch(OnGpu(noise(3, 20, 20)), target)
    with pytest.raises(InputError, match="trace is for frames on the host"):
        segmenter.segment(OnGpu(frame), target, trace=True)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="stream is for frames in a GPU's memory, and these are on the host"):
        segmenter.segment(frame, target, stream=Stream(forward))
    with pytest.raises(InputTypeError, match="stream must be a stream of CUDA"):
        segmenter.segment(OnGpu(frame), target, stream="default")
    with pytest.raises(InputError, match="target must be one Target or 2 of them"):
        segmenter.segment_batch(OnGpu(noise(2, 20, 20)), [target])


def test_a_frame_on_a_gpu_for_a_segmenter_that_is_not(bundle_folder: Path) -> None:
    with samg_fast.load(bundle_folder, backend="onnxruntime", threads=1, device="cpu") as segmenter:
        target = targets_of(segmenter)[0]
        with pytest.raises(
            InputTypeError, match="frame is in a GPU's memory, but this segmenter runs on the processor"
        ):
            segmenter.segment(OnGpu(noise(20, 20)), target)


def test_too_little_memory(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target = targets_of(segmenter)[0]
    forward.free = 1 << 20
    with pytest.raises(BackendError, match=r"this segmenter needs \d+ MiB of GPU 0's memory, and 1 MiB are free"):
        segmenter.segment(noise(400, 500), target)
    forward.free = 1 << 40
    segmenter.segment(noise(400, 500), target)


def test_too_little_memory_for_a_result(forward: Machine, bundle_folder: Path) -> None:
    """And for what a network is called with on its own; nothing stays behind, and the next frame is whole."""
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target)
    needs = r"^{} needs 1 MiB of GPU 0's memory, and 0 MiB are free$"
    for stream in (None, Stream(forward)):
        forward.free = 1000
        with pytest.raises(BackendError, match=needs.format("the result of a frame")):
            segmenter.segment(OnGpu(frame), target, stream=stream)
        with pytest.raises(BackendError, match=needs.format(r"float32 of shape \(1, 3, \d+, \d+\)")):
            segmenter.segment(frame, target, trace=True)
        forward.free = 1 << 40
        same(segmenter.segment(frame, target), wanted)
    forward.free = 1000
    with pytest.raises(BackendError, match=needs.format(r"uint8 of shape \(65536,\)")):
        opened(forward, bundle_folder)


def test_closed(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[0], noise(20, 20)
    segmenter.segment(frame, target)
    segmenter.close()
    segmenter.close()
    for given in (frame, OnGpu(frame)):
        with pytest.raises(BackendError, match="this segmenter is closed; load the bundle again"):
            segmenter.segment(given, target)


def test_the_callers_gpu_stays_the_current_one(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[0], noise(20, 20)
    for current in (1, 0):
        forward.current = current
        segmenter.segment(frame, target)
        segmenter.segment(OnGpu(frame), target)
        with pytest.raises(InputError, match="frame must be in C order"):
            segmenter.segment(OnGpu(frame[:, ::2]), target)
        assert forward.current == current


def test_targets_change_while_frames_are_under_way(machine: Machine, bundle_folder: Path) -> None:
    """The memory that a target is copied from is written again only when the copy is done."""
    segmenter = opened(machine, bundle_folder)
    targets, frame = targets_of(segmenter), noise(50, 70)
    others = [targets[1], targets_of(segmenter)[1], segmenter.adapt(targets[1], *picture(60, 80))]
    wanted = [segmenter.segment(frame, target) for target in others]
    caller = Stream(machine)
    outs = [segmenter.segment(OnGpu(frame), target, stream=caller) for target in others * 2]
    caller.sync()
    for out, expected in zip(outs, wanted * 2, strict=True):
        same_on_gpu(out, expected)


def test_eight_threads(machine: Machine, bundle_folder: Path) -> None:
    """Threads that share a segmenter take turns, each with its own target and size of frames."""
    segmenter = opened(machine, bundle_folder)
    targets = targets_of(segmenter)
    work = [(noise(30 + index, 50, seed=index), targets[index % 3]) for index in range(8)]
    wanted = [segmenter.segment(*each) for each in work]

    def run(index: int) -> list[Any]:
        frame, target = work[index]
        on_host = [segmenter.segment(frame, target) for _ in range(5)]
        return [*on_host, segmenter.segment(OnGpu(frame), target)]

    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(run, range(8)), wanted, strict=True):
            *on_host, on_gpu = found
            for each in on_host:
                same(each, expected)
            same_on_gpu(on_gpu, expected)


def test_nothing_is_allocated_once_a_shape_was_seen(forward: Machine, bundle_folder: Path) -> None:
    segmenter = opened(forward, bundle_folder)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    segmenter.segment(frame, target)
    before = len(forward.memory), forward.log.count("allocate")
    for _ in range(100):
        segmenter.segment(frame, target)
    assert (len(forward.memory), forward.log.count("allocate")) == before


def test_a_network_that_fails(forward: Machine, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame fails, in the first launch as in the capture; the next one is whole."""
    backend = HostBackend(forward)
    segmenter = open_on(bundle_folder, backend)
    target, frame = targets_of(segmenter)[1], noise(50, 70)
    wanted = segmenter.segment(frame, target, trace=True)
    _, features, decoder = backend.opened
    # Calls before the one that fails: the decoder has three in a frame and three in its capture
    for network, good in [(decoder, 0), (decoder, 2), (decoder, 3), (decoder, 5), (features, 0), (features, 1)]:
        left, enqueue = iter(range(good)), network.enqueue

        def fails(*arguments: Any, left: Any = left, enqueue: Any = enqueue) -> None:
            if next(left, None) is None:
                raise BackendError("the network cannot run")
            enqueue(*arguments)

        monkeypatch.setattr(network, "enqueue", fails)
        with pytest.raises(BackendError, match="the network cannot run"):
            segmenter.segment(frame, target)
        monkeypatch.setattr(network, "enqueue", enqueue)
    for _ in range(3):
        same(segmenter.segment(frame, target), wanted)
