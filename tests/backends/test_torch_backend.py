"""The torch and torch-compiled backends: when they can run, whole segmentations, and what calls promise."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support import gpu_machine
from support.paths import TINY
from support.synthetic_bundle import picture

onnx = pytest.importorskip("onnx", reason="the torch backend reads files with onnx")
torch = pytest.importorskip("torch", reason="the torch backend needs PyTorch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import samg_fast  # noqa: E402
from samg_fast.backends import Options, torch_cuda  # noqa: E402
from samg_fast.backends.onnx_torch import read  # noqa: E402
from samg_fast.backends.torch import TorchNetwork, make, status  # noqa: E402
from samg_fast.devices import driver  # noqa: E402
from samg_fast.errors import BackendError  # noqa: E402


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Give PyTorch its number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny_decoder_inputs(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    shapes = {"embedding": (64, 24, 24), "mask_input": (1, 96, 96)}
    inputs = {name: random.standard_normal((batch, *shape)) for name, shape in shapes.items()}
    inputs["point_coords"] = random.uniform(0, 96, (batch, 16, 2))
    inputs["point_labels"] = random.integers(-2, 4, (batch, 16))
    inputs["has_mask_input"] = random.integers(0, 2, batch)
    return {name: array.astype(np.float32) for name, array in inputs.items()}


def write(path: Path, nodes: list[Any], size: int = 4, weights: dict[str, Any] | None = None) -> Path:
    """Write a graph from x to y, any number of rows of so many columns."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(each, np.float32), name) for name, each in (weights or {}).items()]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def small(path: Path) -> Path:
    """Write a small layer with its nonlinearity."""
    random = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Gelu", ["z"], ["y"])]
    return write(path, nodes, weights={"w": random.standard_normal((4, 4))})


def opened(path: Path, name: str = "torch") -> TorchNetwork:
    network = make(Options(name, "fp32")).open(path)
    assert isinstance(network, TorchNetwork)
    return network


@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_status_on_the_processor(name: str) -> None:
    found = status(name, "cpu")
    assert (found.name, found.available, found.reason, found.device) == (name, True, "", "cpu")
    assert (found.version, found.precisions) == (torch.__version__, ("fp32", "fp16", "bf16", "int8"))


def test_status_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = status("torch-compiled", "cpu")
    assert (found.available, found.reason) == (False, "it compiles with no-such-compiler, which is not there")
    assert status("torch", "cpu").available


def test_status_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    found = status("torch", "cuda")
    assert (found.available, found.reason, found.device) == (False, "this PyTorch is built without CUDA", "cuda")


def test_status_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_machine.put(monkeypatch, gpu_machine.TURING, driver=(12, 4))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "supports CUDA 12.4, but samg_fast._engine_cuda is made for" in status("torch", "cuda").reason
    gpu_machine.put_kernels(monkeypatch, 12040)
    assert "supports CUDA 12.4, but PyTorch" in status("torch", "cuda").reason
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert status("torch", "cuda").reason == "PyTorch finds no GPU that it can use"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = status("torch", "cuda")
    assert (found.available, found.precisions, found.detail) == (True, ("fp32", "fp16", "int8"), "NVIDIA T4 (7.5)")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert status("torch-compiled", "cuda").reason == "it compiles with triton, which is not installed"
    monkeypatch.setattr(driver, "find", lambda: driver.Gpus(reason="there is no NVIDIA driver"))
    assert status("torch", "cuda").reason == "there is no NVIDIA driver"


@pytest.mark.parametrize("other", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("kind", ["separate", "shared", "tiny"])
def test_same_masks(kind: str, other: str, bundle_folder: Path, shared_folder: Path) -> None:
    pytest.importorskip(other, reason="masks are compared with other backends'")
    folder = {"separate": bundle_folder, "shared": shared_folder, "tiny": "tiny"}[kind]
    reference, mask = picture(84, 84)
    frame, _ = picture(84, 84, seed=1)
    found = []
    for backend in ("torch", other):
        with samg_fast.load(folder, backend=backend, device="cpu", threads=1) as segmenter:
            found.append(segmenter.segment(frame, segmenter.identify(reference, mask), trace=True))
    assert found[0].mask.any()
    np.testing.assert_array_equal(found[0].mask, found[1].mask)
    assert found[0].score == pytest.approx(found[1].score, abs=1e-5)


def test_threads() -> None:
    make(Options("torch", "fp32", threads=1))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    make(Options("torch", "fp32"))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_wrong_inputs(name: str, tmp_path: Path) -> None:
    network = opened(small(tmp_path / "small.onnx"), name)
    for inputs, message in [
        ({}, r"its inputs are \['x'\], not \[\]"),
        ({"z": (1, 4)}, r"its inputs are \['x'\], not \['z'\]"),
        ({"x": (1, 5)}, r"it takes x of shape \(any, 4\), .*, not \(1, 5\)"),
        ({"x": (1, 4, 1)}, r"it takes x .*, not \(1, 4, 1\)"),
        ({"x": ()}, r"it takes x .*, not \(\)"),
    ]:
        with pytest.raises(BackendError, match=rf"^{name} cannot run small\.onnx: {message}$"):
            network(**{port: np.zeros(shape, np.float32) for port, shape in inputs.items()})


def test_inputs_of_several_batches() -> None:
    inputs = tiny_decoder_inputs(2)
    with pytest.raises(BackendError, match="its first axis as long as every input's"):
        opened(TINY / "decoder.onnx")(**{**inputs, "has_mask_input": inputs["has_mask_input"][:1]})


@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_unreadable(name: str, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not an ONNX file")
    with pytest.raises(BackendError, match=rf"^{name} cannot read broken\.onnx: ") as caught:
        opened(tmp_path / "broken.onnx", name)
    assert "\n" not in str(caught.value)
    strange = write(tmp_path / "strange.onnx", [helper.make_node("Det", ["x"], ["y"], name="odd")])
    with pytest.raises(BackendError, match=rf"^{name} cannot read strange\.onnx: node odd \(Det\): "):
        opened(strange, name)


def test_a_failure_while_it_runs(tmp_path: Path) -> None:
    """What a graph only finds out about at another batch size."""
    weights = {"two": np.ones((2, 4))}
    path = write(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "two"], ["y"])], weights=weights)
    with pytest.raises(BackendError, match=r"^torch cannot run two\.onnx: The size of tensor a \(3\)"):
        opened(path)(x=np.zeros((3, 4), np.float32))


def test_arrays_of_any_kind(tmp_path: Path) -> None:
    network = opened(small(tmp_path / "small.onnx"))
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    wanted = network(x=x)["y"]
    fixed = x.copy()
    fixed.flags.writeable = False
    for same in (np.asfortranarray(x), x.astype(np.float64), fixed, x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(network(x=same)["y"], wanted)
    assert not np.shares_memory(network(x=x)["y"], wanted)
    x *= 2  # what is written to an array that was passed before counts
    assert (network(x=x)["y"] != wanted).any()


def test_autocast_and_gradients_of_the_caller(tmp_path: Path) -> None:
    network = opened(small(tmp_path / "small.onnx"))
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    wanted = network(x=x)["y"]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        np.testing.assert_array_equal(network(x=x)["y"], wanted)


def together(network: TorchNetwork) -> None:
    """Run a decoder in many threads, on inputs of their own, and compare with one thread after the other."""
    inputs = [tiny_decoder_inputs(1, seed) for seed in range(6)]
    wanted = [network(**each)["low_res_masks"].copy() for each in inputs]

    def work(index: int) -> None:
        for _ in range(15):
            np.testing.assert_array_equal(network(**inputs[index])["low_res_masks"], wanted[index])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns within a call, which they do once in a long while otherwise
    try:
        with ThreadPoolExecutor(len(inputs)) as pool:
            list(pool.map(work, range(len(inputs))))
    finally:
        sys.setswitchinterval(before)


def test_threads_at_once() -> None:
    make(Options("torch", "fp32", threads=1))  # sums are split by the number of threads, which new threads may not know
    together(opened(TINY / "decoder.onnx"))


@pytest.mark.slow
def test_compiled_decoder() -> None:
    make(Options("torch", "fp32", threads=1))
    compiled, eager = opened(TINY / "decoder.onnx", "torch-compiled"), opened(TINY / "decoder.onnx")
    inputs = tiny_decoder_inputs(1)
    for name, wanted in eager(**inputs).items():
        # Sums in another order, against values of up to 4
        np.testing.assert_allclose(compiled(**inputs)[name], wanted, atol=2e-5)
    together(compiled)


@pytest.mark.slow
def test_compiled_for_each_batch(tmp_path: Path) -> None:
    """Many batch sizes, casts included."""
    half, full = TensorProto.BFLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=half),
        helper.make_node("Cast", ["low"], ["back"], to=full),
        helper.make_node("Mul", ["back", "back"], ["y"]),
    ]
    path = write(tmp_path / "casts.onnx", nodes)
    compiled, eager = opened(path, "torch-compiled"), opened(path)
    for batch in range(1, 11):
        x = np.random.default_rng(batch).standard_normal((batch, 4)).astype(np.float32)
        wanted = eager(x=x)["y"]
        assert (wanted != x * x).all()
        np.testing.assert_array_equal(compiled(x=x)["y"], wanted)


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    x = np.random.default_rng().standard_normal((3, 4)).astype(np.float32)  # compiled by none before
    path = write(tmp_path / "new.onnx", [helper.make_node("Mul", ["x", "w"], ["y"])], weights={"w": x})
    with pytest.raises(BackendError, match=r"^torch-compiled cannot run new\.onnx: .*compiler") as caught:
        opened(path, "torch-compiled")(x=x)
    assert "\n" not in str(caught.value)


class Host:
    """A GPU whose memory is the host's: `Cuda` as far as a network needs it."""

    device_id = 0
    stream = SimpleNamespace(handle=0)
    use = contextlib.nullcontext

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return np.full(shape, np.nan, dtype)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def download(self, array: NDArray[Any]) -> NDArray[Any]:
        return array


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run what is for a GPU on the host: all but the GPU's streams."""
    monkeypatch.setattr(torch_cuda, "_device", lambda cuda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: handle)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    return Host()


@pytest.mark.parametrize("batch", [1, 3])
def test_gpu_network_on_the_host(batch: int, on_host: Any) -> None:
    path, before = TINY / "decoder.onnx", torch.backends.cudnn.conv.fp32_precision
    network = torch_cuda.TorchGpuNetwork(on_host, path.name, read(path), backend="torch")
    assert (network.capturable, network.scratch(batch)) == (False, 0)
    inputs = tiny_decoder_inputs(batch)
    for name, wanted in opened(path)(**inputs).items():
        np.testing.assert_array_equal(network(**inputs)[name], wanted)
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_memory_is_freed_while_other_threads_are_kept_away(on_host: Any, tmp_path: Path) -> None:
    """Or it might be freed on the stream while another thread captures what the stream gets."""
    freed = []

    class Watched(Host):
        inside = False

        @contextlib.contextmanager
        def use(self) -> Iterator[None]:
            self.inside = True
            yield
            self.inside = False

        def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            array = super().empty(shape, dtype)
            weakref.finalize(array, lambda: freed.append(self.inside))
            return array

        def upload(self, array: NDArray[Any]) -> NDArray[Any]:
            made = self.empty(array.shape, array.dtype)
            made[...] = array
            return made

        def download(self, array: NDArray[Any]) -> NDArray[Any]:
            return array.copy()

    path = small(tmp_path / "small.onnx")
    network = torch_cuda.TorchGpuNetwork(Watched(), path.name, read(path), backend="torch")
    network(x=np.zeros((2, 4), np.float32))
    assert freed == [True, True]


def test_gpu_network_refuses(on_host: Any, tmp_path: Path) -> None:
    path = small(tmp_path / "small.onnx")
    network = torch_cuda.TorchGpuNetwork(on_host, path.name, read(path), backend="torch")
    x, y = np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32)
    for arrays, message in [
        ({"y": y}, r"its inputs are \['x'\], not \[\]"),
        ({"x": x}, r"it takes y as float32 of shape \(2, 4\) on cpu, not nothing"),
        ({"x": x, "y": y[:1]}, r"it takes y .*, not torch\.float32 of shape \(1, 4\)"),
        ({"x": x.astype(np.float64), "y": y}, r"it takes x .*, not torch\.float64 of shape \(2, 4\)"),
    ]:
        with pytest.raises(BackendError, match=rf"^torch cannot run small\.onnx: {message}"):
            network.enqueue(arrays, 2, on_host.stream, None)


def test_gpu_network_of_free_sizes(on_host: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "free.onnx", [helper.make_node("Exp", ["x"], ["y"])])
    model = onnx.load(path)
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[1].dim_param = "columns"
    onnx.save(model, path)
    with pytest.raises(BackendError, match=r"^torch cannot run free\.onnx: more of x may vary than its first axis"):
        torch_cuda.TorchGpuNetwork(on_host, path.name, read(path), backend="torch")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
@pytest.mark.parametrize("batch", [1, 3])
def test_gpu_network(name: str, batch: int) -> None:
    assert status(name, "cuda").available, status(name, "cuda").reason
    path = TINY / "decoder.onnx"
    backend = make(Options(name, "fp32", device="cuda"))
    network = backend.open(path)
    inputs = tiny_decoder_inputs(batch)
    for _ in range(2):
        for port, wanted in opened(path)(**inputs).items():
            np.testing.assert_allclose(network(**inputs)[port], wanted, atol=1e-4)  # no TF32: that is 1e-3 away


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "torch-compiled"])
def test_same_masks_on_a_gpu(name: str) -> None:
    reference, mask = picture(84, 84)
    frame, _ = picture(84, 84, seed=1)
    found = []
    for backend, device in ((name, "cuda"), ("torch", "cpu")):
        with samg_fast.load("tiny", backend=backend, device=device) as segmenter:
            found.append(segmenter.segment(frame, segmenter.identify(reference, mask)).mask)
    np.testing.assert_array_equal(*found)
