"""Engines built by the real TensorRT-RTX, ahead of time, without a GPU."""

from __future__ import annotations

import os
import signal
import threading
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from samg_fast.backends.tensorrt import build_engine, check_capabilities, dialect
from samg_fast.bundle.zoo import resolve
from samg_fast.devices import driver
from samg_fast.errors import BackendError, InputError
from support import fake_tensorrt

library = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx, which the tensorrt-rtx extra brings")

TINY = resolve("tiny")


def build(path: Path, **changes: Any) -> Any:
    wanted: dict[str, Any] = {
        "backend": "tensorrt-rtx",
        "precision": "fp32",
        "batches": (1, 8),
        "capabilities": ("8.9",),
        **changes,
    }
    return build_engine(path, **wanted)


def save(
    path: Path, node: Any, batch: object = "batch", features: object = 4, domain: str = "", **options: Any
) -> Path:
    """Write a graph of one node: y = x w, with weights w."""
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.arange(64, dtype=np.float32).reshape(4, 16), "w")],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path, **options)
    return path


def product() -> Any:
    return helper.make_node("MatMul", ["x", "w"], ["y"], name="product")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("graph") / "graph.onnx", product())


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect every configuration that a build uses."""
    made = []
    create = dialect.Dialect.create_config

    def watched(self: dialect.Dialect, *arguments: Any) -> Any:
        made.append(create(self, *arguments))
        return made[-1]

    monkeypatch.setattr(dialect.Dialect, "create_config", watched)
    return made


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_tiny_is_built_ahead_of_time(name: str, configs: list[Any]) -> None:
    built = build(TINY / name, capabilities=("8.9", "12.0"))
    assert len(built.engine) > (TINY / name).stat().st_size
    assert built.timing_cache == b""
    (config,) = configs
    assert config.num_optimization_profiles == 2
    targets = [config.get_compute_capability(each) for each in range(config.num_compute_capabilities)]
    assert targets == [library.ComputeCapability.SM89, library.ComputeCapability.SM120]
    assert not config.get_flag(library.BuilderFlag.TF32)
    assert config.get_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)


def test_networks_are_strongly_typed() -> None:
    rtx = dialect.load("tensorrt-rtx")
    network = rtx.create_network(library.Builder(rtx.messages))
    assert network.get_flag(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def test_external_weights_are_found_or_reported_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(
        tmp_path / "graph.onnx", product(), save_as_external_data=True, location="graph.data", size_threshold=16
    )
    monkeypatch.chdir("/")
    assert build(path).engine
    (tmp_path / "graph.data").unlink()
    with pytest.raises(BackendError, match=r"cannot build graph\.onnx at fp32 .*Failed to open file: .*graph\.data"):
        build(path)


def test_a_graph_for_a_fixed_number_gets_no_profile(tmp_path: Path, configs: list[Any]) -> None:
    path = save(tmp_path / "graph.onnx", product(), batch=2)
    assert build(path, batches=(2,)).engine
    assert configs[0].num_optimization_profiles == 0
    with pytest.raises(InputError, match=r"batches is \(1, 8\), but graph\.onnx takes 2 pictures at once"):
        build(path)


def test_other_axes_may_not_vary(tmp_path: Path) -> None:
    path = save(tmp_path / "graph.onnx", helper.make_node("Relu", ["x"], ["y"]), features="features")
    with pytest.raises(BackendError, match=r"graph\.onnx takes x \(-1, -1\): only the first axis"):
        build(path)


def test_a_node_the_parser_refuses_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Sharpen", ["x"], ["y"], name="edges", domain="mine")
    path = save(tmp_path / "graph.onnx", node, domain="mine")
    refused = (
        r"cannot build graph\.onnx at fp32 for compute capability 8\.9: node edges \(Sharpen\) is refused: .+Plugin"
    )
    with pytest.raises(BackendError, match=refused):
        build(path)


def test_quantised_activations_with_zero_points_are_refused(tmp_path: Path) -> None:
    """Why the backends offer no int8: bundles quantise activations to uint8."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [x], [y], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BackendError, match=r"node quantise \(QuantizeLinear\) is refused: .*zero point"):
        build(tmp_path / "graph.onnx", precision="int8")


def test_errors_of_the_builder_are_reported(tmp_path: Path) -> None:
    """TensorRT-RTX has no float32 matrix products for Turing GPUs, so the minimum capability is 8.0."""
    with pytest.raises(BackendError, match=r"for compute capability 7\.5: .*FP32 GEMM is not supported"):
        build(TINY / "decoder.onnx", capabilities=("7.5",))


def test_files_that_are_not_graphs(tmp_path: Path, graph: Path) -> None:
    path = tmp_path / "graph.onnx"
    with pytest.raises(BackendError, match=r"graph\.onnx cannot be read: No such file"):
        build(path)
    path.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(BackendError, match=r"cannot build graph\.onnx at fp32 .*Failed to parse the ONNX model"):
        build(path)
    path.write_bytes(b"")
    with pytest.raises(BackendError, match=r"graph\.onnx is no ONNX graph: it has no inputs and outputs"):
        build(path)


def test_capabilities_the_library_does_not_know(graph: Path) -> None:
    known = r"TensorRT-RTX [\d.]+ builds ahead of time for 7\.5, 8\.0, "
    with pytest.raises(InputError, match=rf"compute_capability is '9\.0', but {known}"):
        check_capabilities("tensorrt-rtx", ("8.9", "9.0"))
    with pytest.raises(InputError, match=rf"compute_capability is 'sm_89', but {known}"):
        build(graph, capabilities=("sm_89",))


@pytest.mark.parametrize("batches", [(), (0,), (8, 1), (1, 1)])
def test_batches_must_ascend(graph: Path, batches: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"batches is \(.*\), expected whole numbers above 0 in rising order"):
        build(graph, batches=batches)


def test_without_a_gpu_a_capability_must_be_named(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find", lambda: driver.Gpus(reason="there is no NVIDIA driver"))
    with pytest.raises(BackendError, match=r"for the GPU here: there is no NVIDIA driver; name a compute capability"):
        build(graph, capabilities=())


def test_progress_reports_nested_phases() -> None:
    seen: list[tuple[str, int, int, str | None]] = []
    build(TINY / "encoder.onnx", progress=lambda *step: seen.append(step))
    outermost, begun, steps, parent = seen[0]
    assert (begun, parent) == (0, None)
    assert seen[-1] == (outermost, steps, steps, None)
    assert {each[3] for each in seen} >= {None, outermost}
    assert all(0 <= done <= of for _, done, of, _ in seen)


def test_exception_in_progress_ends_the_build(graph: Path) -> None:
    calls = []

    def progress(*step: Any) -> None:
        calls.append(step)
        if len(calls) == 3:
            raise ZeroDivisionError("the bar broke")

    with pytest.raises(ZeroDivisionError, match="the bar broke"):
        build(graph, progress=progress)
    assert len(calls) == 3


@pytest.mark.usefixtures("ctrl_c")  # enables Ctrl-C
def test_ctrl_c_ends_the_build() -> None:
    phases = set()
    pressed = threading.Event()

    def progress(phase: str, *_: Any) -> None:
        phases.add(phase)
        if not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)  # the main thread waits for the builder's thread

    with pytest.raises(KeyboardInterrupt):
        build(TINY / "encoder.onnx", progress=progress)
    assert pressed.is_set()
    whole: set[str] = set()
    build(TINY / "encoder.onnx", progress=lambda phase, *_: whole.add(phase))
    assert phases < whole


def test_fake_has_only_names_of_the_library() -> None:
    for name in fake_tensorrt.names(fake_tensorrt.make("tensorrt_rtx")):
        attrgetter(name)(library)
