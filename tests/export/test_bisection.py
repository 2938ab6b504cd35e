"""Bisection finds the layers that must stay in float32: real overflows, and layers that fail by an artificial rule."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="exporting needs the extra export")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from samg_fast.errors import BackendError, InputError  # noqa: E402
from samg_fast.export.bisection import MAX_LAYERS, failing_layers  # noqa: E402
from samg_fast.export.emulate import emulated  # noqa: E402

LAYERS, WIDTH = 60, 8
HOT = 400.0  # factor on a layer's operand and weights: their products exceed 65,504
FAINT = 1e-8  # factor on a layer's weights: float16 has no numbers between 0 and 6e-8

Holds = Callable[[onnx.ModelProto], bool]


def chain(folder: Path, *, hot: Collection[int] = (), faint: Collection[int] = (), unnamed: bool = False) -> Path:
    """Write a residual network: x += 0.05 x W, layer after layer.

    The products of hot layers overflow float16; they are scaled back in float32. The weights of faint layers become 0
    in float16, so that these layers add nothing instead of 0.05 x.
    """
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def times(value: str, factor: float, output: str) -> str:
        weights.append(numpy_helper.from_array(np.array(factor, np.float32), f"{output}.factor"))
        return node("Mul", value, weights[-1].name, output=output)

    def node(kind: str, *inputs: str, output: str) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name="" if unnamed else f"{kind.lower()}.{output}"))
        return output

    x = "x"
    for index in range(LAYERS):
        matrix = np.eye(WIDTH) + 0.1 * random.standard_normal((WIDTH, WIDTH)) * (index not in faint)
        up, weight = (HOT, HOT) if index in hot else (1.0, FAINT) if index in faint else (1.0, 1.0)
        weights.append(numpy_helper.from_array((weight * matrix).astype(np.float32), f"w{index}"))
        product = node("MatMul", times(x, up, f"operand{index}"), f"w{index}", output=f"product{index}")
        part = times(product, 0.05 / (up * weight), f"part{index}")
        x = node("Add", x, part, output=f"x{index}")
    node("Identity", x, output="y")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = folder / "chain.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def run(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": np.linspace(1, 2, WIDTH, dtype=np.float32)[None]})[0]
    return found


def agrees(path: Path, tolerance: float) -> Holds:
    """Return a check that compares an emulated half-precision graph with the float32 graph, relative to its maximum."""
    expected = run(onnx.load(path))
    return lambda model: bool(np.abs(run(emulated(model)) - expected).max() <= tolerance * np.abs(expected).max())


def in_half(model: onnx.ModelProto) -> set[int]:
    """Return which layers of a chain have float16 weights."""
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return {int(name.removeprefix("w").removesuffix(".half")) for name in halves}


def names(*layers: int) -> tuple[str, ...]:
    return tuple(f"matmul.product{index}" for index in layers)


def test_two_layers_that_overflow(tmp_path: Path) -> None:
    path = chain(tmp_path, hot=(17, 44))
    told: list[str] = []
    found = failing_layers(path, "fp16", agrees(path, 1e-2), [], told.append)
    assert found == names(17, 44)
    assert told[0] == "chain.onnx: try 1, 60 of 60 layers in fp32: holds"
    assert told[1] == "chain.onnx: try 2, 0 of 60 layers in fp32: fails"
    assert told[-1] == f"chain.onnx: 2 of 60 layers must stay in fp32, found in {len(told) - 1} tries"
    assert len(told) - 1 <= 2 + 2 * (6 + 1)  # two searches among 60 layers, each followed by a check of the rest


@pytest.mark.parametrize("layer", [0, LAYERS - 1])
def test_the_first_and_the_last_layer(tmp_path: Path, layer: int) -> None:
    path = chain(tmp_path, hot=[layer])
    assert failing_layers(path, "fp16", agrees(path, 1e-2), []) == names(layer)


def test_nodes_without_names_are_named_by_their_output(tmp_path: Path) -> None:
    path = chain(tmp_path, hot=[5], unnamed=True)
    assert failing_layers(path, "fp16", agrees(path, 1e-2), []) == ("product5",)


def test_ranges_are_taken_from_the_feeds(tmp_path: Path) -> None:
    """Feeds that show the overflow let `to_half` divide the operand; zeros do not."""
    path = chain(tmp_path, hot=[30])
    for x, found in ((np.full((1, WIDTH), 2, np.float32), ()), (np.zeros((1, WIDTH), np.float32), names(30))):
        assert failing_layers(path, "fp16", agrees(path, 1e-2), [{"x": x}]) == found


def test_bfloat16_does_not_overflow(tmp_path: Path) -> None:
    path = chain(tmp_path, hot=(17, 44))
    assert failing_layers(path, "bf16", agrees(path, 5e-2), []) == ()


def test_nothing_must_stay_in_float32(tmp_path: Path) -> None:
    path = chain(tmp_path)
    told: list[str] = []
    assert failing_layers(path, "fp16", agrees(path, 1e-2), [], told.append) == ()
    assert told[-1] == "chain.onnx: 0 of 60 layers must stay in fp32, found in 2 tries"


def test_two_layers_that_fail_only_together(tmp_path: Path) -> None:
    """Each loses part of the result, and only one may; keeping the one nearer to the input is as good as the other."""
    path = chain(tmp_path, faint=(20, 40))
    assert failing_layers(path, "fp16", agrees(path, 0.07), []) == names(20)
    assert failing_layers(path, "fp16", agrees(path, 0.01), []) == names(20, 40)
    assert failing_layers(path, "fp16", agrees(path, 0.15), []) == ()


def test_a_graph_that_fails_in_float32_too(tmp_path: Path) -> None:
    path = chain(tmp_path)
    with pytest.raises(BackendError, match=r"^chain.onnx fails in fp32 too: it is not a matter of fp16$"):
        failing_layers(path, "fp16", lambda _: False, [])


def test_more_layers_than_the_maximum(tmp_path: Path) -> None:
    path = chain(tmp_path)
    listed = ", ".join(names(*range(LAYERS - MAX_LAYERS, LAYERS)))
    with pytest.raises(BackendError, match=f"^chain.onnx fails at fp16 even with {listed} in fp32"):
        failing_layers(path, "fp16", lambda model: not in_half(model), [])


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision is 'int8', expected fp16 or bf16"):
        failing_layers(chain(tmp_path), "int8", lambda _: True, [])


@pytest.mark.parametrize("seed", range(8))
def test_found_layers_are_sufficient_and_necessary(tmp_path: Path, seed: int) -> None:
    """Random sets of layers fail when all of a set are in half precision."""
    random = np.random.default_rng(seed)
    broken = [set(random.choice(LAYERS, random.integers(1, 4), replace=False).tolist()) for _ in range(4)]
    tries: list[int] = []

    def holds(model: onnx.ModelProto) -> bool:
        tries.append(1)
        return not any(each <= in_half(model) for each in broken)

    found = [int(name.rpartition("product")[2]) for name in failing_layers(chain(tmp_path), "fp16", holds, [])]
    assert found == sorted(found)
    for left_out in (None, *found):
        half = set(range(LAYERS)) - (set(found) - {left_out})
        assert any(each <= half for each in broken) == (left_out is not None)
    assert len(tries) <= 2 + len(found) * 7
