"""Engines on the fake TensorRT, in host memory, which gives the numbers of ONNX Runtime."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from samg_fast import engine_cache
from samg_fast.backends import Options
from samg_fast.backends import tensorrt as backends
from samg_fast.backends.tensorrt import BuiltEngine, TensorRtNetwork, build_engine, check_capabilities
from samg_fast.bundle import Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import driver
from samg_fast.errors import BackendError, InputError
from support import fake_tensorrt, gpu_machine
from support.gpu_machine import ADA, H100, TURING
from support.host_cuda import HostArray, HostCuda
from support.tensorrt import LIBRARIES

TINY = resolve("tiny")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_machine.put(monkeypatch, ADA)


@pytest.fixture(params=LIBRARIES, ids=" ".join)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    backend, version = request.param
    return backend, fake_tensorrt.install(monkeypatch, backend, version)


def built(backend: str, name: str = "encoder.onnx", **changes: Any) -> BuiltEngine:
    return build_engine(TINY / name, **{"backend": backend, "precision": "fp32", "batches": (1, 8), **changes})


def opened(backend: str, name: str = "encoder.onnx", **changes: Any) -> TensorRtNetwork:
    cuda: Any = HostCuda()
    return TensorRtNetwork(cuda, name, built(backend, name, **changes).engine, backend=backend)


def inputs(session: ort.InferenceSession, batch: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(batch)
    shapes = {each.name: (batch, *each.shape[1:]) for each in session.get_inputs()}
    values = {
        name: np.round(rng.uniform(-1, 3, shape)) if "label" in name else rng.uniform(0, 1, shape)
        for name, shape in shapes.items()
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def device_arrays(network: TensorRtNetwork, batch: int) -> tuple[dict[str, HostArray], HostArray]:
    shapes = {**network.inputs, **network.outputs}
    arrays = {name: HostArray((batch, *shape), np.float32) for name, shape in shapes.items()}
    return arrays, HostArray((network.scratch(batch),), np.uint8)


def since(fake: Any, *kinds: str) -> list[tuple[Any, ...]]:
    return [call for call in fake.calls if call[0] in kinds]


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_the_numbers_are_those_of_the_graph(fake: tuple[str, Any], name: str) -> None:
    session = ort.InferenceSession(TINY / name, providers=["CPUExecutionProvider"])
    network = opened(fake[0], name, batches=(1, 4))
    for batch in (1, 3, 4, 1):
        given = inputs(session, batch)
        found = network(**given)
        wanted = dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))
        assert found.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-5)  # threads may add in another order


def test_networks_are_strongly_typed_and_without_tf32(fake: tuple[str, Any]) -> None:
    backend, module = fake
    built(backend)
    flag = 1 if module.__version__.startswith("10.") else 0  # the others create strongly typed networks only
    assert since(module, "create_network") == [("create_network", flag)]
    assert ("clear_flag", module.BuilderFlag.TF32) in module.calls


def test_builds_for_the_gpu_here_by_default(fake: tuple[str, Any]) -> None:
    backend, module = fake
    built(backend)
    targets = since(module, "set_compute_capability")
    assert targets == ([("set_compute_capability", "CURRENT", 0)] if backend == "tensorrt-rtx" else [])


def test_timing_caches_are_reused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    module = fake_tensorrt.install(monkeypatch)
    first = built("tensorrt").timing_cache
    assert first
    module.calls.clear()
    assert built("tensorrt", timing_cache=first).timing_cache == first
    assert since(module, "set_timing_cache") == [("set_timing_cache", first, False)]
    assert not caplog.records
    assert built("tensorrt", timing_cache=b"another version's").timing_cache == first
    assert "the timing cache is not of TensorRT 10.13.2.6 on this GPU" in caplog.text


def test_tensorrt_rtx_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_tensorrt.install(monkeypatch, "tensorrt-rtx", "1.7.1.116")
    assert built("tensorrt-rtx", timing_cache=b"anything").timing_cache == b""
    assert not since(module, "set_timing_cache")


def test_tensorrt_builds_for_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch)
    with pytest.raises(
        InputError,
        match=r"compute_capability is '8\.9', but TensorRT 10\.13\.2\.6 builds engines only on the GPU that runs them",
    ):
        check_capabilities("tensorrt", ("8.9",))


def test_a_profile_for_each_batch(fake: tuple[str, Any]) -> None:
    backend, module = fake
    engine = module.Runtime(None).deserialize_cuda_engine(built(backend, batches=(2, 8, 9)).engine)
    profiles = [engine.get_tensor_profile_shape("image", each) for each in range(engine.num_optimization_profiles)]
    assert [[shape[0] for shape in each] for each in profiles] == [[1, 2, 2], [3, 8, 8], [9, 9, 9]]
    assert {shape[1:] for each in profiles for shape in each} == {(3, 96, 96)}


def test_every_profile_runs_when_the_engine_is_opened(fake: tuple[str, Any]) -> None:
    backend, module = fake
    opened(backend, batches=(2, 8))
    assert since(module, "execute_async_v3") == [("execute_async_v3", 7, 0), ("execute_async_v3", 7, 1)]
    specialised = "EAGER" if backend == "tensorrt-rtx" else None
    made = since(module, "create_execution_context")
    for _, strategy, specialisation, _ in made:
        assert strategy == module.ExecutionContextAllocationStrategy.USER_MANAGED
        assert getattr(specialisation, "name", None) == specialised
    (compiled,) = {each[3] for each in made}  # one for both
    assert (compiled is None) == (backend == "tensorrt")


def test_the_smallest_profile_that_covers_a_batch(fake: tuple[str, Any]) -> None:
    backend, module = fake
    network = opened(backend, batches=(2, 8))
    module.calls.clear()
    for batch in (1, 2, 3, 8):
        arrays, scratch = device_arrays(network, batch)
        network.enqueue(arrays, batch, SimpleNamespace(handle=5), scratch)  # type: ignore[arg-type]
    assert [call[1:] for call in since(module, "execute_async_v3")] == [(5, 0), (5, 0), (5, 1), (5, 1)]
    assert [network.scratch(batch) for batch in (1, 2, 3, 8)] == [8192, 8192, 32768, 32768]
    with pytest.raises(BackendError, match=r"the engine of encoder\.onnx takes 1 to 8 pictures at once, not 9"):
        network.scratch(9)


def test_a_context_is_never_changed_once_it_has_run_for_arrays(fake: tuple[str, Any]) -> None:
    """The behaviour of a CUDA graph is undefined once the context that it was captured from has changed."""
    backend, module = fake
    network = opened(backend)
    stream: Any = SimpleNamespace(handle=5)
    arrays, scratch = device_arrays(network, 2)
    network.enqueue(arrays, 2, stream, scratch)
    (context,) = network._bound.values()
    before = dict(context._addresses), context._memory, dict(context._shapes)
    module.calls.clear()
    network.enqueue(arrays, 2, stream, scratch)
    assert module.calls == [("execute_async_v3", 5, 1)]
    other_arrays, other = device_arrays(network, 2)
    for given, space in ((other_arrays, other), ({**arrays, "features": other_arrays["features"]}, scratch)):
        network.enqueue(given, 2, stream, space)
        network.enqueue(given, 2, stream, space)
    network.enqueue(arrays, 2, stream, other)
    network(image=np.zeros((2, *network.inputs["image"]), np.float32))
    assert (context._addresses, context._memory, context._shapes) == before
    assert len(network._bound) == 4
    module.calls.clear()
    network.enqueue(arrays, 2, stream, scratch)
    assert module.calls == [("execute_async_v3", 5, 1)]


def test_calls_with_host_arrays_create_no_contexts(fake: tuple[str, Any]) -> None:
    backend, module = fake
    network = opened(backend, batches=(1, 4))
    module.calls.clear()
    for batch in (1, 3, 3, 1, 4, 3):
        network(image=np.zeros((batch, *network.inputs["image"]), np.float32))
    assert len(since(module, "create_execution_context")) == 1  # besides those of the profiles
    assert not network._bound


def test_work_may_run_later_on_the_stream(fake: tuple[str, Any]) -> None:
    backend, module = fake
    network = opened(backend)
    arrays, scratch = device_arrays(network, 2)
    arrays["image"].array[...] = 0.5
    for name in network.outputs:
        arrays[name].array[...] = np.nan
    queued: list[Any] = []
    module.enqueue_hook = lambda *call: queued.append(call)
    network.enqueue(arrays, 2, SimpleNamespace(handle=5), scratch)  # type: ignore[arg-type]
    ((handle, work, reads, writes),) = queued
    assert handle == 5
    assert reads == [(arrays["image"].ptr, arrays["image"].array.nbytes)]
    outputs = [(arrays[name].ptr, arrays[name].array.nbytes) for name in network.outputs]
    assert sorted(writes) == sorted([*outputs, (scratch.ptr, network.scratch(2))])
    assert np.isnan(arrays["features"].array).all()
    work()
    assert np.isfinite(arrays["features"].array).all()


def test_arrays_that_do_not_fit(fake: tuple[str, Any]) -> None:
    network = opened(fake[0])
    arrays, scratch = device_arrays(network, 2)
    stream: Any = SimpleNamespace(handle=5)
    for wrong, found in (
        (HostArray((2, 3, 96, 95), np.float32), r"float32 of shape \(2, 3, 96, 95\)"),
        (HostArray((2, 3, 96, 96), np.float16), r"float16 of shape"),
        (None, "nothing"),
    ):
        given = {**arrays, "image": wrong} if wrong is not None else {k: v for k, v in arrays.items() if k != "image"}
        with pytest.raises(BackendError, match=rf"encoder\.onnx takes image as float32 of shape .*, not {found}"):
            network.enqueue(given, 2, stream, scratch)
    network.enqueue(arrays, 2, stream, scratch)


def test_errors_of_the_library_are_reported(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    network = opened(fake[0])
    arrays, scratch = device_arrays(network, 2)
    monkeypatch.setattr(network, "inputs", {"image": (3, 96, 95)})
    with pytest.raises(BackendError, match=r"cannot run encoder\.onnx: .*image has the shape .*outside of its profile"):
        network.enqueue(arrays, 2, SimpleNamespace(handle=5), scratch)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("version", "10.1"), r"the plan is for version [\d.]+, not 10\.1"),
        (("GPU", "8.6"), r"the plan is for gpu 8\.9, not 8\.6"),
    ],
)
def test_engines_of_other_versions_or_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], why: str
) -> None:
    fake_tensorrt.install(monkeypatch)
    engine = built("tensorrt").engine
    if change[0] == "GPU":
        monkeypatch.setattr(fake_tensorrt, *change)
    else:
        fake_tensorrt.install(monkeypatch, version=change[1])
    cuda: Any = HostCuda()
    with pytest.raises(
        BackendError, match=rf"TensorRT [\d.]+ cannot open the engine of e\.onnx on NVIDIA L4 \(8\.9\): .*{why}"
    ):
        TensorRtNetwork(cuda, "e.onnx", engine, backend="tensorrt")


def test_memory_is_checked_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt.install(monkeypatch)
    cuda: Any = HostCuda()
    engine = built("tensorrt", batches=(4096,)).engine
    for free, what in ((1 << 20, r"the engine of e\.onnx needs 3"), (8 << 20, r"running e\.onnx needs 16")):
        monkeypatch.setattr(driver, "free_memory", lambda index, free=free: free)
        with pytest.raises(BackendError, match=rf"{what} MiB of GPU 0's memory, and {free >> 20} MiB are free"):
            TensorRtNetwork(cuda, "e.onnx", engine, backend="tensorrt")


def test_status(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, module = fake
    status = backends.status(backend)
    assert (status.available, status.reason, status.version) == (True, "", module.__version__)
    assert status.precisions == ("fp32", "fp16", "bf16")
    assert status.detail.startswith("NVIDIA L4 (8.9), not int8: ")
    assert status.untried == ""
    gpu_machine.put(monkeypatch, TURING)
    status = backends.status(backend)
    if backend == "tensorrt":
        assert status.precisions == ("fp32", "fp16")
    else:
        assert not status.available
        assert status.reason == "TensorRT-RTX 1.7.1.116 runs on compute capability 8.0 or later, not 7.5"
    monkeypatch.setattr(driver, "find", lambda: driver.Gpus(reason="there is no NVIDIA driver"))
    status = backends.status(backend)
    assert (status.available, status.reason, status.precisions) == (False, "there is no NVIDIA driver", ())


def test_gpus_that_the_library_does_not_list_are_untried(
    fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = fake
    gpu_machine.put(monkeypatch, H100)
    status = backends.status(backend)
    assert status.available
    names = "TensorRT-RTX 1.7.1.116 names compute capabilities 8.9, 12.0, not 9.0; name it to try it"
    assert status.untried == (names if backend == "tensorrt-rtx" else "")  # TensorRT builds for the GPU here


def test_kernels_are_checked_too(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries for CUDA 12 with kernels for CUDA 13, and no kernels at all."""
    backend, _ = fake
    monkeypatch.setattr("importlib.metadata.distributions", list)
    gpu_machine.put(monkeypatch, ADA, driver=(12, 4))
    old = (
        "the NVIDIA driver supports CUDA 12.4, but samg_fast._engine_cuda is made for CUDA 13.0: install a newer driver"
    )
    assert backends.status(backend).reason == old
    monkeypatch.setitem(sys.modules, "samg_fast._engine_cuda", None)
    status = backends.status(backend)
    assert not status.available
    assert status.reason.startswith("samg_fast._engine_cuda cannot be loaded (import of samg_fast._engine_cuda halted")
    assert status.reason.endswith("): install the package where nvcc is found")


def test_the_driver_must_know_the_cuda_of_the_wheel(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, module = fake
    for wheel, reason in (
        ("cu13", r"supports CUDA 12.8, but TensorRT.* is made for CUDA 13.0"),
        ("cu12", ""),
        ("libs", ""),
    ):
        found = [SimpleNamespace(name="numpy"), SimpleNamespace(name=f"{module.__name__.replace('_', '-')}-{wheel}")]
        monkeypatch.setattr("importlib.metadata.distributions", lambda found=found: found)
        gpu_machine.put(monkeypatch, ADA, driver=(12, 8))
        gpu_machine.put_kernels(monkeypatch, 12040)
        status = backends.status(backend)
        assert status.available == (not reason)
        assert re.search(reason, status.reason)


def test_the_backend(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, module = fake
    monkeypatch.setattr(backends, "Cuda", lambda index: SimpleNamespace(device_id=index))
    made = backends.make(Options(backend, "fp16", device="cuda", index=1, batches=(1, 4)))
    assert (made.name, made.version, made.precision, made.threads) == (backend, module.__version__, "fp16", None)
    assert (made.batches, made.max_batch, made.index, made.cuda.device_id) == ((1, 4), 4, 1, 1)


def test_an_engine_is_opened_though_it_left_the_cache(
    fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process may remove it between building and opening."""
    backend, _ = fake
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "Cuda", lambda index: HostCuda())
    made, bundle = backends.make(Options(backend, "fp32", device="cuda")), Bundle.open(TINY)
    engines = engine_cache.prepare(bundle, made)
    files = [*tmp_path.rglob("*.engine")]
    assert len(files) == 2
    for file in files:
        file.unlink()
    networks = {report.role: made.open_engine(report.file, engine) for report, engine in engines}
    assert set(networks["encoder"].outputs) == {"embedding", "features"}
    assert networks["decoder"].name == "decoder.onnx"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.10: cannot open shared object file\nmore"),
        OSError("libnvinfer.so.10: cannot open shared object file"),
        ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings"),
    ],
)
def test_installed_but_not_importable(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fake_tensorrt.install(monkeypatch)

    def broken(name: str) -> Any:
        raise error

    monkeypatch.setattr("importlib.import_module", broken)
    reason = str(error).split("\n")[0]
    with pytest.raises(BackendError) as raised:
        check_capabilities("tensorrt", ())
    assert str(raised.value) == f"tensorrt cannot be loaded ({reason}); run: pip install 'samg-fast[tensorrt]'"


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ImportError, match="tensorrt"):
        backends.status("tensorrt")
    for ask in (lambda: check_capabilities("tensorrt", ()), lambda: built("tensorrt")):
        with pytest.raises(ImportError, match=r"the tensorrt backend needs .* pip install 'samg-fast\[tensorrt\]'"):
            ask()


def test_every_batch_size_has_a_context(fake: tuple[str, Any]) -> None:
    """A CUDA graph captured from one must not see the shapes of another."""
    backend, module = fake
    network = opened(backend, batches=(1, 4))
    given = {batch: device_arrays(network, batch) for batch in (1, 2, 3, 4)}
    for batch in (2, 3, 2, 4, 1, 3):
        arrays, scratch = given[batch]
        network.enqueue(arrays, batch, network.cuda.stream, scratch)
    assert [call[2][0] for call in since(module, "set_input_shape")] == [
        1,
        4,
        2,
        3,
        4,
        1,
    ]  # the first two when it was opened


def test_whether_frames_can_be_captured(fake: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, module = fake
    assert opened(backend).capturable
    if backend == "tensorrt-rtx":  # TensorRT's contexts always can
        monkeypatch.setattr(module.IExecutionContext, "is_stream_capturable", lambda _, stream: False)
        assert not opened(backend).capturable
