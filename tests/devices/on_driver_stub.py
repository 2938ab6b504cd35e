"""Frames through the real cuda-core on a stub of the driver; `test_driver_stub` runs these tests in a process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import _engine, ops
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import cuda as cuda_device
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError, InputTypeError
from samg_fast.samples import load_pack
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from support import fake_cuda
from support.driver_stub import Dlpack, Driver, Interface
from support.fake_cuda import array_at
from support.host_gpu import HostBackend, open_on

pytestmark = pytest.mark.filterwarnings("error")

TINY = resolve("tiny")
SIZE = 1 << 30
"""Bytes that the stub says are free."""

MAX_CALLS = 15
"""Maximum number of calls of the driver for a frame on the GPU: each costs time on the host."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    fake_cuda.install_kernels(monkeypatch, fake_cuda.Kernels(driver, _engine, 1))
    return driver


@pytest.fixture
def backend(driver: Driver) -> HostBackend:
    return HostBackend(driver, max_batch=2)


@pytest.fixture
def segmenter(backend: HostBackend) -> Segmenter:
    return open_on(TINY, backend)


@pytest.fixture
def plain() -> Iterator[Segmenter]:
    with samg_fast.load(TINY, backend="onnxruntime", device="cpu", threads=1) as segmenter:
        yield segmenter


@pytest.fixture
def frames() -> Any:
    return load_pack().tasks["walker_walk"].settings["video_hard"][0][:4]


def target_of(segmenter: Segmenter) -> Target:
    task = load_pack().tasks["walker_walk"]
    return segmenter.identify(task.reference, task.reference_mask)


def same(found: Any, wanted: Any) -> None:
    mask, masked = (each if isinstance(each, np.ndarray) else array_at(each) for each in (found.mask, found.masked))
    np.testing.assert_array_equal(mask, wanted.mask)
    np.testing.assert_array_equal(masked, wanted.masked)
    assert found.box == wanted.box
    assert found.score == pytest.approx(wanted.score, abs=1e-5)


def test_frames_of_the_host(segmenter: Segmenter, plain: Segmenter, frames: Any) -> None:
    """Launched, captured, and replayed; one and two at once."""
    target = target_of(plain)
    wanted = plain.segment_batch(frames, target)
    for _ in range(2):
        for frame, expected in zip(frames, wanted, strict=True):
            same(segmenter.segment(frame, target), expected)
        for out, expected in zip(segmenter.segment_batch(frames, target), wanted, strict=True):
            same(out, expected)
    assert segmenter._on_gpu is not None
    assert all(ready.program.captured for ready in segmenter._on_gpu._prepared.values())


@pytest.mark.parametrize("kind", [Dlpack, Interface])
def test_frames_of_the_gpu(
    backend: HostBackend, segmenter: Segmenter, plain: Segmenter, frames: Any, kind: type[Interface]
) -> None:
    """On the caller's stream, whichever way it comes, and without one; results are the caller's own."""
    target, cuda = target_of(plain), backend.cuda
    wanted = plain.segment_batch(frames, target)
    stream = cuda._device.create_stream()

    class Torch:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, int(stream.handle)

    there = [kind(cuda.upload(frame)) for frame in frames]
    pair = kind(cuda.upload(frames[:2]))
    for given in (None, stream, Torch(), int(stream.handle)):
        outs = [segmenter.segment(each, target, stream=given) for each in there]
        outs += segmenter.segment_batch(pair, target, stream=given)
        for out, expected in zip(outs, [*wanted, *wanted[:2]], strict=True):
            same(out, expected)
        if kind is Dlpack:  # the library orders its own stream only if the caller names none
            assert there[0].asked == ({int(cuda.stream.handle)} if given is None else {-1})
            there[0].asked.clear()


def test_what_becomes_of_memory(driver: Driver, backend: HostBackend, segmenter: Segmenter, frames: Any) -> None:
    """A result is freed when the last that is left of it is dropped, in the order of the caller's stream."""
    target, there = target_of(segmenter), Dlpack(backend.cuda.upload(frames[0]))
    stream = backend.cuda._device.create_stream()
    segmenter.segment(there, target, stream=stream)
    before = driver.pieces
    mask = segmenter.segment(there, target, stream=stream).mask
    kept = array_at(mask).copy()
    for _ in range(3):
        segmenter.segment(there, target, stream=stream)
    assert driver.pieces == before + 1
    np.testing.assert_array_equal(array_at(mask), kept)
    backend.cuda.upload(frames[0])  # freed on another stream
    assert driver.freed_on == int(backend.cuda.stream.handle)
    del mask
    assert driver.pieces == before
    assert driver.freed_on == int(stream.handle)


def test_how_often_the_driver_is_called(
    driver: Driver, backend: HostBackend, segmenter: Segmenter, frames: Any
) -> None:
    target, there = target_of(segmenter), Dlpack(backend.cuda.upload(frames[0]))
    stream = backend.cuda._device.create_stream()
    for _ in range(2):
        segmenter.segment(there, target, stream=stream)
        segmenter.segment(frames[0], target)
    before = driver.calls
    segmenter.segment(there, target, stream=stream)
    assert driver.calls - before <= MAX_CALLS
    before = driver.calls
    segmenter.segment(frames[0], target)
    assert driver.calls - before <= 6


def test_too_little_memory(driver: Driver, backend: HostBackend, segmenter: Segmenter, frames: Any) -> None:
    target, there = target_of(segmenter), Dlpack(backend.cuda.upload(frames[0]))
    wanted = segmenter.segment(frames[0], target)
    pieces = driver.pieces
    needs = "^{} needs 1 MiB of GPU 0's memory, and 0 MiB are free$"
    for what, call in (
        ("the result of a frame", lambda: segmenter.segment(there, target)),
        (r"float32 of shape \(1, 3, \d+, \d+\)", lambda: segmenter.segment(frames[0], target, trace=True)),
        (r"float64 of shape \(50000,\)", lambda: backend.cuda.upload(np.zeros(50_000))),
        (r"uint8 of shape \(65536,\)", lambda: open_on(TINY, HostBackend(driver))),
    ):
        driver.available(1000)
        with pytest.raises(BackendError, match=needs.format(what)):
            call()
        driver.available(SIZE)
        same(segmenter.segment(frames[0], target), wanted)
    assert driver.pieces <= pieces + 1


def test_tables_of_more_sizes_than_are_kept(
    segmenter: Segmenter, plain: Segmenter, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_device, "_MAX_CONSTANTS", 20)
    target = target_of(plain)
    for _ in range(2):
        for size in range(60, 72):
            frame = np.ascontiguousarray(frames[0][:size, : size + 3])
            same(segmenter.segment(frame, target), plain.segment(frame, target))
    assert segmenter._on_gpu is not None
    assert all(ready.program.captured for ready in segmenter._on_gpu._prepared.values())


def test_a_capture_that_is_lost(
    backend: HostBackend, segmenter: Segmenter, plain: Segmenter, frames: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that waits inside loses it: one warning, and frames launch by launch from then on."""
    caplog.set_level(logging.WARNING, "samg_fast")
    target, decoder = target_of(plain), backend.opened[-1]
    enqueue = decoder.enqueue

    def waits(*arguments: Any) -> None:
        backend.cuda.synchronize()
        enqueue(*arguments)

    decoder.enqueue = waits  # type: ignore[method-assign]
    for frame in frames:
        same(segmenter.segment(frame, target), plain.segment(frame, target))
    (said,) = [each.getMessage() for each in caplog.records]
    assert said.startswith("a frame cannot be captured as a CUDA graph: GPU 0 reports CUDA_ERROR_STREAM_CAPTURE_UNSUPP")
    assert said.endswith("; frames like these, 1 of 84 x 84 pixels, are launched step by step, which is slower")


def test_the_callers_gpu_stays_the_current_one(driver: Driver) -> None:
    from cuda.core import Device

    Device(0).set_current()
    other = Cuda(1)
    assert Device().device_id == 0
    there = other.upload(np.arange(3))
    assert there.device_id == 1
    assert Device().device_id == 0


def test_arrays_elsewhere(driver: Driver, backend: HostBackend, frames: Any) -> None:
    mask = backend.cuda.upload(np.ones((1, 84, 84), np.bool_))
    with pytest.raises(
        InputTypeError, match=r"^frame must be uint8 of shape .* in the memory of GPU 0, not uint8 of s"
    ):
        ops.apply_mask(frames[:1], mask, device=backend.cuda)
    with pytest.raises(InputTypeError, match=r"^frame must be uint8 of shape .* in the memory of GPU 0, not Dlpack$"):
        ops.apply_mask(Dlpack(Cuda(1).upload(frames[:1])), mask, device=backend.cuda)  # type: ignore[arg-type]
