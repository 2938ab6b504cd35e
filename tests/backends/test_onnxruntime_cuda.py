"""ONNX Runtime's CUDA provider: errors of the real library, and networks on a fake of it in host memory."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import samg_fast
from samg_fast import _engine
from samg_fast.backends import GpuRuntime, Options
from samg_fast.devices import driver
from samg_fast.errors import BackendError
from support import fake_cuda, gpu_machine

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from samg_fast.backends.onnxruntime import cuda as onnxruntime_cuda  # noqa: E402
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeBackend  # noqa: E402
from samg_fast.backends.onnxruntime.session import session_options  # noqa: E402
from support.fake_onnxruntime import Binding, Library  # noqa: E402
from support.gpu_machine import H100  # noqa: E402

FP32 = Options("onnxruntime", "fp32", device="cuda")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    """Pretend that there are a GPU, its driver and a CUDA provider."""
    library = Library(fake_cuda.install(monkeypatch, _engine, launch=1))
    monkeypatch.setattr(onnxruntime_cuda, "ort", library)
    gpu_machine.put(monkeypatch, H100, core=False)
    return library


def backend() -> Any:
    return onnxruntime_cuda.make(FP32)


class TestStatus:
    def test_available(self, library: Library, capsys: pytest.CaptureFixture[str]) -> None:
        status = onnxruntime_cuda.status("onnxruntime")
        assert (status.available, status.reason, status.device) == (True, "", "cuda")
        assert (status.version, status.detail) == ("1.31.1", "NVIDIA H100 (9.0)")
        assert status.precisions == ("fp32", "fp16")

    def test_without_the_provider(self) -> None:
        if onnxruntime_cuda._PROVIDER in ort.get_available_providers():
            pytest.skip("this ONNX Runtime has the CUDA provider")
        status = onnxruntime_cuda.status("onnxruntime")
        assert not status.available
        cure = "run: pip install 'samg-fast[onnxruntime-gpu]' in place of onnxruntime"
        assert status.reason == f"this ONNX Runtime has no CUDAExecutionProvider; {cure}"

    def test_the_real_library_without_a_gpu_cannot_be_loaded(self) -> None:
        if onnxruntime_cuda._PROVIDER in ort.get_available_providers():
            pytest.skip("this ONNX Runtime has the CUDA provider")
        assert re.match(r"its CUDAExecutionProvider cannot be loaded \(.+\); run: pip", onnxruntime_cuda._load())

    def test_old_version_without_node_placement(self, library: Library) -> None:
        library.__dict__["InferenceSession"] = object
        library.__dict__["__version__"] = "1.23.2"
        reason = onnxruntime_cuda.status("onnxruntime").reason
        assert reason.startswith("ONNX Runtime 1.23.2 does not say what it leaves to the processor; install 1.24")

    @pytest.mark.parametrize(
        ("found", "reason"),
        [
            (driver.Gpus(reason="the NVIDIA driver sees no GPU"), "the NVIDIA driver sees no GPU"),
            (
                driver.Gpus((12, 4), (H100,)),
                "the NVIDIA driver supports CUDA 12.4, but ONNX Runtime 1.31.1 is made for CUDA 13.0: install a newer "
                "driver",
            ),
        ],
    )
    def test_no_gpu_for_it(
        self, library: Library, monkeypatch: pytest.MonkeyPatch, found: driver.Gpus, reason: str
    ) -> None:
        monkeypatch.setattr(driver, "find", lambda: found)
        gpu_machine.put_kernels(monkeypatch, 12040)
        status = onnxruntime_cuda.status("onnxruntime")
        assert (status.available, status.precisions, status.reason) == (False, (), reason)

    def test_kernels_are_checked_first(self, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        library.__dict__["cuda_version"] = "12.8"
        monkeypatch.setattr(driver, "find", lambda: driver.Gpus((12, 4), (H100,)))
        reason = onnxruntime_cuda.status("onnxruntime").reason
        assert reason.startswith(
            "the NVIDIA driver supports CUDA 12.4, but samg_fast._engine_cuda is made for CUDA 13.0"
        )

    def test_missing_cuda_library(self, library: Library, capsys: pytest.CaptureFixture[str]) -> None:
        library.missing = "libcublasLt.so.13"
        reason = onnxruntime_cuda.status("onnxruntime").reason
        why = "Failed to load libcublasLt.so.13: cannot open shared object file"
        cure = "run: pip install 'samg-fast[onnxruntime-gpu]'"
        assert reason == f"its CUDAExecutionProvider cannot be loaded ({why}); {cure}"
        assert capsys.readouterr() == ("", "")


class TestOpening:
    def test_a_gpu_backend(self, library: Library, bundle_folder: Path) -> None:
        opened = backend()
        assert isinstance(opened, GpuRuntime)
        assert (opened.name, opened.precision, opened.threads, opened.max_batch) == ("onnxruntime", "fp32", None, None)
        network = opened.open(bundle_folder / "encoder.onnx")
        assert network.capturable is False
        assert network.scratch(8) == 0

    def test_options_of_the_provider(self, library: Library, bundle_folder: Path) -> None:
        opened = backend()
        for name in ("encoder.onnx", "features.onnx"):
            opened.open(bundle_folder / name)
        first, second = library.opened
        assert first["device_id"] == "0"
        assert first["use_tf32"] == "0"
        own = {first["user_compute_stream"], second["user_compute_stream"]}
        assert len(own) == 2, "two networks on one stream would run one after the other"
        assert not own & {str(opened.cuda.stream.handle), str(opened.cuda.side.handle)}

    def test_no_such_gpu(self, library: Library) -> None:
        with pytest.raises(BackendError, match="GPU 2 cannot be used: "):
            onnxruntime_cuda.make(Options("onnxruntime", "fp32", device="cuda", index=2))

    def test_a_session_without_the_provider_is_refused(self, library: Library, bundle_folder: Path) -> None:
        library.providers = ["CPUExecutionProvider"]
        refused = r"cannot run encoder\.onnx on the GPU: it would run it on CPUExecutionProvider instead"
        with pytest.raises(BackendError, match=refused):
            backend().open(bundle_folder / "encoder.onnx")

    def test_nodes_on_the_processor_are_refused_by_their_operator(self, library: Library, bundle_folder: Path) -> None:
        library.left = {"Sigmoid", "ConvTranspose", "Gather"}
        refused = r"cannot run decoder\.onnx on the GPU: it would leave ConvTranspose, Sigmoid to the processor"
        with pytest.raises(BackendError, match=refused):
            backend().open(bundle_folder / "decoder.onnx")

    def test_shape_arithmetic_may_stay_on_the_processor(self, library: Library, bundle_folder: Path) -> None:
        library.left = {"Gather", "Unsqueeze"}
        assert backend().open(bundle_folder / "decoder.onnx").inputs["point_coords"] == (12, 2)

    def test_unreadable(self, library: Library, tmp_path: Path) -> None:
        (tmp_path / "broken.onnx").write_bytes(b"not an ONNX file")
        with pytest.raises(BackendError, match=r"onnxruntime cannot read broken\.onnx: ") as caught:
            backend().open(tmp_path / "broken.onnx")
        assert "\n" not in str(caught.value)

    def test_other_types_than_float32_are_refused(self, library: Library, tmp_path: Path) -> None:
        ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["B", 3]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, tmp_path / "double.onnx")
        refused = r"double\.onnx has x as tensor\(double\) of shape \['B', 3\], expected float32 of known sides"
        with pytest.raises(BackendError, match=refused):
            backend().open(tmp_path / "double.onnx")


def on_the_cpu(path: Path, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return OnnxRuntimeBackend("fp32", 1).open(path)(**inputs)


class TestRunning:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_called_with_numpy_arrays(self, library: Library, bundle_folder: Path, batch: int) -> None:
        network = backend().open(bundle_folder / "encoder.onnx")
        image = np.random.default_rng(batch).standard_normal((batch, 3, 64, 64)).astype(np.float32)
        for each in (image, image[:, :, ::-1]):
            found = network(image=each)
            expected = on_the_cpu(bundle_folder / "encoder.onnx", image=each)
            assert found.keys() == expected.keys()
            np.testing.assert_array_equal(found["embedding"], expected["embedding"])

    @pytest.mark.parametrize("order", fake_cuda.ORDERS)
    def test_side_by_side_on_two_streams(
        self, library: Library, bundle_folder: Path, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Events alone order inputs that are still being copied and outputs that are read immediately."""
        library.machine = fake_cuda.install(monkeypatch, _engine, launch=1, order=order)
        opened = backend()
        cuda = opened.cuda
        networks = {name: opened.open(bundle_folder / f"{name}.onnx") for name in ("encoder", "features")}
        random = np.random.default_rng(5)
        images = {
            name: random.standard_normal((2, *network.inputs["image"])).astype(np.float32)
            for name, network in networks.items()
        }
        arrays, copies = {}, {}
        for name, network in networks.items():
            (output,) = network.outputs
            shape = (2, *network.outputs[output])
            arrays[name] = {"image": cuda.upload(np.zeros_like(images[name])), output: cuda.empty(shape, np.float32)}
            copies[name] = cuda.empty(shape, np.float32)
        library.machine.log.clear()
        for name, image in images.items():
            pinned = cuda.pinned(image.nbytes)
            pinned.bytes[: image.nbytes] = image.reshape(-1).view(np.uint8)
            cuda.copy_in(arrays[name]["image"], pinned)
        with cuda.beside() as side:
            networks["features"].enqueue(arrays["features"], 2, side, None)
            networks["encoder"].enqueue(arrays["encoder"], 2, cuda.stream, None)
        cuda.copy(copies["encoder"], arrays["encoder"]["embedding"])
        cuda.copy(copies["features"], arrays["features"]["features"])
        assert library.machine.log.count("session") == 2
        assert "sync" not in library.machine.log, "something waited for the GPU"
        for name, image in images.items():
            (expected,) = on_the_cpu(bundle_folder / f"{name}.onnx", image=image).values()
            np.testing.assert_array_equal(cuda.download(copies[name]), expected)

    def test_other_arrays_in_the_next_call(self, library: Library, bundle_folder: Path) -> None:
        opened = backend()
        network, cuda = opened.open(bundle_folder / "encoder.onnx"), opened.cuda
        images = np.random.default_rng(1).standard_normal((3, 1, 3, 64, 64)).astype(np.float32)
        outputs = []
        for image in images:
            outputs.append(cuda.empty((1, *network.outputs["embedding"]), np.float32))
            network.enqueue({"image": cuda.upload(image), "embedding": outputs[-1]}, 1, cuda.stream, None)
        for image, output in zip(images, outputs, strict=True):
            expected = on_the_cpu(bundle_folder / "encoder.onnx", image=image)["embedding"]
            np.testing.assert_array_equal(cuda.download(output), expected)

    @pytest.mark.parametrize("order", fake_cuda.ORDERS)
    def test_a_whole_frame(
        self, library: Library, bundle_folder: Path, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library.machine = fake_cuda.install(monkeypatch, _engine, launch=1, order=order)
        gpu_machine.put_kernels(monkeypatch)
        frame = np.random.default_rng(8).integers(0, 256, (84, 84, 3), dtype=np.uint8)
        mask = np.zeros((84, 84), bool)
        mask[20:60, 30:70] = True
        outs = []
        for device in ("cuda", "cpu"):
            with samg_fast.load(bundle_folder, backend="onnxruntime", device=device) as segmenter:
                outs.append(segmenter.segment(frame, segmenter.identify(frame, mask)))
        assert outs[0].mask.any()
        np.testing.assert_array_equal(outs[0].mask, outs[1].mask)
        assert outs[0].score == pytest.approx(outs[1].score, abs=1e-6)

    def test_wrong_arrays_are_refused(self, library: Library, bundle_folder: Path) -> None:
        opened = backend()
        network, cuda = opened.open(bundle_folder / "encoder.onnx"), opened.cuda
        arrays = {"image": cuda.empty((1, 4, 64, 64), np.float32), "embedding": cuda.empty((1, 8, 16, 16), np.float32)}
        refused = r"onnxruntime cannot run encoder\.onnx: Got invalid dimensions for image$"
        with pytest.raises(BackendError, match=refused):
            network.enqueue(arrays, 1, cuda.stream, None)


def test_fake_matches_the_real_library(bundle_folder: Path) -> None:
    assert isinstance(ort.preload_dlls, type(lambda: None))
    assert isinstance(ort.cuda_version, str)
    assert callable(ort.OrtValue.ortvalue_from_shape_and_type)
    session = ort.InferenceSession(
        str(bundle_folder / "encoder.onnx"),
        session_options(),
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
    )
    for name in ("get_provider_graph_assignment_info", "run_with_iobinding", "get_providers"):
        assert callable(getattr(session, name))
    for name in ("bind_input", "bind_output"):
        real = inspect.signature(getattr(session.io_binding(), name)).parameters
        assert list(real) == list(inspect.signature(getattr(Binding(), name)).parameters)


@pytest.mark.gpu
def test_on_a_gpu(bundle_folder: Path) -> None:
    """The real provider gives the CPU's numbers up to rounding, on both streams, with no nodes on the CPU."""
    status = onnxruntime_cuda.status("onnxruntime")
    if not status.available:
        pytest.skip(status.reason)
    opened = backend()
    random = np.random.default_rng(3)
    for file in ("encoder.onnx", "features.onnx", "decoder.onnx"):
        network = opened.open(bundle_folder / file)
        for batch in (1, 3, 1):
            inputs = {
                name: random.standard_normal((batch, *shape)).astype(np.float32)
                for name, shape in network.inputs.items()
            }
            found, expected = network(**inputs), on_the_cpu(bundle_folder / file, **inputs)
            for name in expected:
                # Sums in another order: a few units in the last place of float32 for values near 1
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)
