"""A GPU as a device, on a fake of cuda-core: what is checked, copied, kept and refused. No GPU is needed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samg_fast import ops
from samg_fast.devices import cuda as cuda_device
from samg_fast.devices.cuda import Cuda
from samg_fast.errors import BackendError, CaptureError, InputError, InputTypeError, MissingExtraError
from samg_fast.ops import reference
from samg_fast.pipeline.gpu.runner import is_on_gpu
from support import fake_cuda
from support.fake_cuda import Machine, OnGpu, Stream

engine = pytest.importorskip("samg_fast._engine_simt", reason="this build has no _engine_simt: -DSAMG_TESTS=ON")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return fake_cuda.install(monkeypatch, engine)


@pytest.fixture
def device(machine: Machine) -> Cuda:
    return Cuda()


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_another_librarys_arrays(device: Cuda) -> None:
    values = noise(3, 20, 30)
    points = ops.topk_points(OnGpu(values), 2, True, (1, 1, 29, 19), device=device)
    assert device.download(points).tolist() == ops.topk_points(values, 2, True, (1, 1, 29, 19)).tolist()
    one = ops.topk_points(OnGpu(values[0]), 2, False, OnGpu(np.array([3, 4, 9, 19], np.int32)), device=device)
    assert device.download(one).tolist() == reference.topk_points(values[0], 2, False, (3, 4, 9, 19)).tolist()


def test_out_is_another_librarys_too(device: Cuda) -> None:
    values, out = noise(9, 9), np.full((2, 2), 7, np.int32)
    ops.topk_points(OnGpu(values), 2, True, out=OnGpu(out), device=device)  # type: ignore[arg-type]
    device.synchronize()
    assert out.tolist() == reference.topk_points(values, 2, True).tolist()


def test_what_comes_back_goes_in_again(device: Cuda) -> None:
    arrays = reference.unit(noise(2, 8), 1), reference.unit(noise(2, 5), 1), noise(8, 6, 6), noise(5, 3, 3)
    size: dict[str, Any] = {"prompt_side": 24, "height": 20, "width": 30}
    similarity = ops.similarity_map(*map(OnGpu, arrays), **size, device=device)
    np.testing.assert_allclose(device.download(similarity), reference.similarity_map(*arrays, **size), atol=2e-6)
    points = ops.topk_points(similarity, 1, True, device=device)
    assert points.shape == (2, 1, 2)


def test_nothing_waits_once_tables_are_there(machine: Machine, device: Cuda) -> None:
    logits, weights = OnGpu(noise(2, 3, 16, 16)), OnGpu(noise(2, 3))
    size: dict[str, Any] = {"prompt_side": 32, "height": 20, "width": 30}
    ops.resize_logits(logits, weights=weights, **size, device=device)
    assert "sync" in machine.log
    machine.log.clear()
    out = ops.resize_logits(logits, weights=weights, **size, device=device)
    assert "sync" not in machine.log
    assert "copy" not in machine.log
    machine.log.clear()
    ops.resize_logits(logits, weights=weights, **size, out=out, device=device)
    assert machine.log == ["resize_logits"]


def test_boxes_that_are_never_the_same_are_not_kept_for_ever(device: Cuda) -> None:
    values = np.arange(81, dtype=np.float32).reshape(9, 9)
    for far in range(1500):
        points = ops.topk_points(OnGpu(values), 1, True, (0, 0, 9, 9 + far), device=device)  # type: ignore[arg-type]
    assert device.download(points).tolist() == [[8, 8]]
    assert len(device._constants) == 1024


def test_the_tables_that_stay_are_those_in_use(machine: Machine, device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "_MAX_CONSTANTS", 3)
    tables = [np.full(4, value, np.int32) for value in range(4)]

    def uploads(*order: int) -> int:
        before = machine.log.count("copy")
        for index in order:
            device.constant(tables[index])
        return machine.log.count("copy") - before

    assert uploads(0, 1, 2) == 3
    assert uploads(0, 3) == 1, "the oldest is used again, so another one has to go"
    assert uploads(0) == 0
    assert uploads(1) == 1
    with device.keeping() as kept:
        assert uploads(0, 1, 2, 3) == 2
        assert uploads(0, 1, 2, 3) == 0, "a frame's own tables stay, however many there are"
    assert {id(array) for array, _ in kept.values()} == {id(table) for table in tables}
    assert len(device._constants) == 3


def test_the_workspace_grows(device: Cuda) -> None:
    values = noise(5, 600, 600)  # 5 maps of 22 chunks, of 64 candidates of 8 bytes
    points = ops.topk_points(OnGpu(values), 64, True, device=device)
    assert device.download(points).tolist() == ops.topk_points(values, 64, True).tolist()


def test_up_and_down(device: Cuda) -> None:
    for array in (noise(3, 4), np.array([True, False]), np.zeros((2, 0), np.int32), noise(2).astype(np.float16)):
        back = device.download(device.upload(array))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_small_arrays_come_and_go_through_the_same_memory(machine: Machine, device: Cuda) -> None:
    there = device.upload(np.arange(10))
    before = len(machine.memory)
    for _ in range(3):
        assert device.download(there).tolist() == list(range(10))
    assert len(machine.memory) == before
    large = np.arange(100_000)
    np.testing.assert_array_equal(device.download(device.upload(large)), large)


def test_what_another_library_still_writes(machine: Machine, device: Cuda) -> None:
    """It comes first, unless the caller sees to the order himself."""
    values, producer = noise(9, 9), Stream(machine)
    for ordered in (True, False):
        device.view(OnGpu(values, stream=producer), ordered=ordered)
        assert any(item.waits for item in device.stream.queue) == ordered  # type: ignore[attr-defined]
        device.synchronize()


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 13])
def test_memory_that_a_gpu_reaches(device: Cuda, kind: int) -> None:
    """Its own, page-locked and managed memory; other memory is not even asked for."""

    class Elsewhere(OnGpu):
        def __dlpack_device__(self) -> tuple[int, int]:
            return (kind, 0)

    assert (device.view(Elsewhere(noise(3))) is not None) == (kind in (2, 3, 13))
    assert is_on_gpu(Elsewhere(noise(3))) == (kind in (2, 13))


def test_arrays_without_dlpack() -> None:
    class Interface:
        __cuda_array_interface__: Any = None

    assert is_on_gpu(Interface())
    for other in (noise(3), [1, 2], None, "frame", np.ndarray):
        assert not is_on_gpu(other)


def test_bad_input(device: Cuda) -> None:
    values = noise(9, 9)
    with pytest.raises(InputTypeError, match=r"values must be float32 of shape .* in the memory of GPU 0, not float32"):
        ops.topk_points(values, 1, True, device=device)
    with pytest.raises(InputTypeError, match="in the memory of GPU 0, not OnGpu"):
        ops.topk_points(OnGpu(values, device_id=1), 1, True, device=device)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"values must be float32 of shape \(any, any\), not float64"):
        ops.topk_points(OnGpu(values.astype(np.float64)), 1, True, device=device)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"values must be in C order, not have the strides \(1, 9\)"):
        ops.topk_points(OnGpu(values.T), 1, True, device=device)  # type: ignore[arg-type]
    strided = OnGpu(noise(2, 3, 16, 16)[:, :, ::2, ::2])
    with pytest.raises(InputError, match="low_res must be in C order but for its first 1 axes"):
        ops.resize_logits(strided, iou=OnGpu(noise(2, 3)), prompt_side=32, height=9, width=9, device=device)  # type: ignore[arg-type]


def test_masks_of_a_larger_output(device: Cuda) -> None:
    """The decoder's first mask left out: only the first axis is strided, which is no copy."""
    output, iou = noise(2, 4, 16, 16), noise(2, 4)
    size: dict[str, Any] = {"prompt_side": 32, "height": 20, "width": 30}
    found = ops.resize_logits(OnGpu(output[:, 1:]), iou=OnGpu(iou[:, 1:].copy()), **size, device=device)  # type: ignore[arg-type]
    wanted = reference.resize_logits(output[:, 1:], iou=iou[:, 1:], **size)
    np.testing.assert_allclose(device.download(found.logits), wanted.logits, atol=1e-5)
    assert device.download(found.chosen).tolist() == wanted.chosen.tolist()


def test_errors_of_a_launch(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> int:
        raise RuntimeError("topk_points: cudaErrorIllegalAddress, an illegal memory access was encountered")

    monkeypatch.setattr(device, "_engine", SimpleNamespace(topk_points=fails))
    with pytest.raises(BackendError, match="topk_points: cudaErrorIllegalAddress, an illegal memory access"):
        ops.topk_points(OnGpu(noise(9, 9)), 1, True, device=device)  # type: ignore[arg-type]


def test_streams_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stream: Any = Stream(fake_cuda.install(monkeypatch, engine))
    assert Cuda(stream=stream).stream is stream


def test_what_runs_beside(machine: Machine, device: Cuda) -> None:
    """The second stream begins after what was there before, and the first waits for it."""
    memory = device.upload(np.zeros(4, np.uint8))
    host = [device.pinned(4) for _ in range(3)]
    for number, each in enumerate(host):
        each.bytes[:] = number + 1
    for order in fake_cuda.ORDERS:
        machine._order = order
        device.copy_in(memory, host[0])
        with device.beside() as side:
            device.memory(memory).copy_from(host[1].memory, stream=side)
        seen = device.upload(np.zeros(4, np.uint8))
        device.copy(seen, memory)
        assert device.download(seen).tolist() == [2, 2, 2, 2]
        device.copy_in(memory, host[2])
        assert device.download(memory).tolist() == [3, 3, 3, 3]


def test_a_captured_launch(machine: Machine, device: Cuda) -> None:
    values, out = noise(9, 9), np.full((1, 2), 7, np.int32)
    given, points = OnGpu(values), OnGpu(out)

    def launch() -> None:
        with device.beside():
            ops.topk_points(given, 1, True, out=points, device=device)  # type: ignore[arg-type]

    launch()
    device.synchronize()
    out[:] = 7
    graph: Any = device.capture(launch)
    device.synchronize()
    assert out.tolist() == [[7, 7]], "a capture runs nothing"
    for place in ((3, 4), (8, 0)):
        values[:] = 0
        values[place] = 1
        graph.launch(device.stream)
        device.synchronize()
        assert out.tolist() == [list(place[::-1])]


def test_a_capture_that_fails(device: Cuda) -> None:
    def forgets() -> None:
        device.side.wait(device.stream)

    with pytest.raises(BackendError, match="a frame cannot be captured as a CUDA graph: CUDA_ERROR_STREAM_CAPTURE_UNJ"):
        device.capture(forgets)
    device.synchronize()  # and the stream is as before


def test_what_fails_inside_a_capture(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of what is captured comes as it is; where the capture is lost with it, the error says that."""

    def network() -> None:
        raise BackendError("the network cannot run")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(BackendError, match=r"^the network cannot run$"):
        device.capture(network)
    end = fake_cuda.GraphBuilder.end_building

    def invalidated(self: fake_cuda.GraphBuilder) -> None:
        end(self)
        raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    monkeypatch.setattr(fake_cuda.GraphBuilder, "end_building", invalidated)
    monkeypatch.setattr(fake_cuda.GraphBuilder, "close", invalidated)
    with pytest.raises(CaptureError, match=r"^a frame cannot be captured as a CUDA graph: the network cannot run$"):
        device.capture(network)
    with pytest.raises(CaptureError, match=r"^a frame cannot be captured .*: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED$"):
        device.capture(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        device.capture(interrupted)
    device.synchronize()


def test_errors_that_show_late(device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Stream) -> None:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(Stream, "sync", fails)
    with pytest.raises(BackendError, match="GPU 0 reports CUDA_ERROR_ILLEGAL_ADDRESS"):
        device.synchronize()


def test_a_callers_stream(machine: Machine, device: Cuda) -> None:
    other = Stream(machine)

    class Foreign:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, other.handle

    assert device.wrap(None) is None
    for stream in (other, other.handle, Foreign()):
        found: Any = device.wrap(stream)
        assert found is other
    for wrong in ("0", True, 1.5):
        with pytest.raises(InputTypeError, match="stream must be a stream of CUDA, with __cuda_stream__ or as the num"):
            device.wrap(wrong)


def test_too_little_memory(machine: Machine, device: Cuda) -> None:
    machine.free = 3 << 20
    device.allocate(2 << 20, "this segmenter")
    with pytest.raises(BackendError, match="this segmenter needs 4 MiB of GPU 0's memory, and 3 MiB are free"):
        device.allocate((3 << 20) + 1, "this segmenter")


def test_too_little_memory_for_an_array(machine: Machine, device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on the way into the GPU, and for page-locked memory, which is the host's."""
    large = np.zeros((600, 500), np.float32)
    machine.free = 1000
    for call in (lambda: device.empty(large.shape, np.float32), lambda: device.upload(large)):
        with pytest.raises(
            BackendError,
            match=r"^float32 of shape \(600, 500\) needs 2 MiB of GPU 0's memory, and 0 MiB are free$",
        ):
            call()
    pinned = len(machine.memory)
    with pytest.raises(BackendError):
        device.upload(large)
    assert len(machine.memory) == pinned, "page-locked memory cannot be freed while an error is on its way"

    def refuses(_: int) -> None:
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(device._core.LegacyPinnedMemoryResource(), "allocate", refuses)
    with pytest.raises(BackendError, match=r"^the host gives GPU 0 no 5 page-locked bytes: CUDA_ERROR_OUT_OF_MEMORY$"):
        device.pinned(5)


def test_memory_that_is_free_and_not_given(machine: Machine, device: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: object, size: int, *, stream: object) -> None:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(fake_cuda.Device, "allocate", refuses)
    with pytest.raises(BackendError, match="GPU 0 gives no 5 bytes of memory: CUDA_ERROR_ILLEGAL_ADDRESS"):
        device.allocate(5, "this segmenter")


def test_the_callers_gpu_stays_the_current_one(machine: Machine) -> None:
    for index in (1, 0):
        machine.current = 1 - index
        assert Cuda(index).device_id == index
        assert machine.current == 1 - index


def test_no_such_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda.install(monkeypatch, engine)
    with pytest.raises(BackendError, match="GPU 3 cannot be used: device_id must be within"):
        Cuda(3)


def test_missing_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda.install(monkeypatch, engine)
    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", None)
    with pytest.raises(BackendError, match="install the package where nvcc is found"):
        Cuda()
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(MissingExtraError, match=r"a GPU needs packages .* pip install 'samg-fast\[cuda\]'"):
        Cuda()
