"""ONNX graphs in PyTorch: every operator and the shipped networks against ONNX Runtime, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.paths import TINY

onnx = pytest.importorskip("onnx", reason="the torch backend reads files with onnx")
ort = pytest.importorskip("onnxruntime", reason="the torch backend is compared with onnxruntime")
torch = pytest.importorskip("torch", reason="the torch backend needs PyTorch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from samg_fast.backends.onnx_layout import LAYOUT  # noqa: E402
from samg_fast.backends.onnx_operators import NATIVE, OPERATORS  # noqa: E402
from samg_fast.backends.onnx_torch import UnsupportedError, read  # noqa: E402

RANDOM = np.random.default_rng(0)

Values = NDArray[Any]


def normal(*shape: int, dtype: Any = np.float32) -> Values:
    return RANDOM.standard_normal(shape).astype(dtype)


def positive(*shape: int, dtype: Any = np.float32) -> Values:
    return RANDOM.uniform(0.2, 3, shape).astype(dtype)


def whole(low: int, high: int, *shape: int, dtype: Any = np.float32) -> Values:
    return RANDOM.integers(low, high, shape).astype(dtype)


@dataclass
class Fixed:
    """An input that is a constant of the graph."""

    values: Any
    dtype: Any = np.int64


@dataclass
class Case:
    """A node, and what goes into it: arrays, constants, or None for what is left out."""

    kind: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1

    @property
    def title(self) -> str:
        shapes = "-".join("x".join(map(str, each.shape)) for each in self.inputs if isinstance(each, np.ndarray))
        attributes = "-".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.kind}-{shapes}-{attributes}-{self.opset}"

    @property
    def arrays(self) -> list[Values]:
        return [each.astype(np.float32) for each in self.inputs if isinstance(each, np.ndarray)]

    def write(self, path: Path) -> Path:
        """Write a graph of the node alone, with a cast of whatever comes and goes in another type than float32."""
        nodes, weights, ports, names = [], [], [], []
        for index, each in enumerate(self.inputs):
            names.append("" if each is None else f"x{index}")
            if isinstance(each, Fixed):
                weights.append(numpy_helper.from_array(np.asarray(each.values, each.dtype), f"x{index}"))
            elif each is not None:
                port = f"x{index}" if each.dtype == np.float32 else f"float{index}"
                ports.append(helper.make_tensor_value_info(port, TensorProto.FLOAT, each.shape))
                if each.dtype != np.float32:
                    kind = helper.np_dtype_to_tensor_dtype(each.dtype)
                    nodes.append(helper.make_node("Cast", [port], [f"x{index}"], to=kind))
        made = [f"y{index}" for index in range(self.outputs)]
        nodes.append(helper.make_node(self.kind, names, made, name="tested", **self.attributes))
        results = [f"out{index}" for index in range(self.outputs)]
        for inner, outer in zip(made, results, strict=True):
            nodes.append(helper.make_node("Cast", [inner], [outer], to=TensorProto.FLOAT))
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results]
        graph = helper.make_graph(nodes, "one", ports, outputs, weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=9))
        for port in model.graph.output:
            port.type.tensor_type.shape.SetInParent()  # where it cannot be inferred
        onnx.save(model, path)
        return path


def run_torch(path: Path, arrays: list[Values]) -> list[Values]:
    with torch.inference_mode():
        return [each.numpy() for each in read(path).module(*map(torch.from_numpy, arrays))]


def run_onnxruntime(path: Path, arrays: list[Values]) -> list[Values]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it drops casts otherwise
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {port.name: array for port, array in zip(session.get_inputs(), arrays, strict=True)}
    outputs: list[Values] = session.run(None, feed)
    return outputs


X = (2, 6, 5, 7)
HALF = np.float16
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
CASES = [
    *(Case(kind, (normal(*X),)) for kind in ("Abs", "Cos", "Erf", "Exp", "Identity", "Neg", "Relu", "Sigmoid", "Sin")),
    *(Case(kind, (positive(*X),)) for kind in ("Log", "Reciprocal", "Sqrt", "Tanh")),
    *(Case(kind, (whole(-3, 3, 2, 3, 4), whole(1, 3, 3, 1))) for kind in BINARY),
    Case("Div", (whole(-9, 9, 40, dtype=np.int32), Fixed([4], np.int32))),
    Case("Max", (normal(3, 4), normal(4), normal(3, 1))),
    *(Case(kind, (whole(0, 2, 9, dtype=bool), whole(0, 2, 9, dtype=bool))) for kind in ("And", "Or")),
    Case("Not", (whole(0, 2, 9, dtype=bool),)),
    Case("Where", (whole(0, 2, 3, 4, dtype=bool), normal(3, 4), normal(4))),
    Case("Pow", (positive(3, 4), Fixed(2.5, np.float32))),
    Case("Pow", (normal(3, 4), Fixed(3, np.int64))),
    *(Case("Cast", (normal(30) * 3,), {"to": to}) for to in (1, 6, 7, 9, 10, 11, 16)),
    Case("Cast", (whole(0, 9, 30),), {"to": TensorProto.UINT8}),
    Case("Clip", (normal(30), Fixed(-0.5, np.float32), Fixed(0.7, np.float32))),
    Case("Clip", (normal(30), None, Fixed(0.7, np.float32))),
    Case("Clip", (normal(30),)),
    Case("Concat", (normal(2, 3), normal(2, 1)), {"axis": 1}),
    Case("Concat", (normal(2, 3), Fixed(np.ones((2, 2)), np.float32), normal(2, 3)), {"axis": -1}),
    Case("Conv", (normal(*X), Fixed(normal(8, 6, 3, 3), np.float32))),
    Case("Conv", (normal(*X), normal(8, 3, 3, 2), normal(8)), {"group": 2, "kernel_shape": [3, 2], "strides": [2, 1]}),
    Case("Conv", (normal(*X), normal(6, 1, 3, 3)), {"group": 6, "pads": [1, 2, 1, 2], "dilations": [2, 1]}),
    Case("Conv", (normal(*X), normal(8, 6, 3, 3)), {"pads": [0, 1, 2, 3], "auto_pad": "NOTSET"}),
    Case("ConvTranspose", (normal(*X), normal(6, 3, 2, 2), normal(3)), {"strides": [2, 2]}),
    Case("ConvTranspose", (normal(*X), normal(6, 2, 3, 3)), {"group": 2, "pads": [1, 0, 1, 0], "dilations": [1, 2]}),
    Case("ConvTranspose", (normal(*X), normal(6, 3, 3, 3)), {"strides": [3, 2], "output_padding": [1, 0]}),
    *(Case("DepthToSpace", (normal(2, 12, 3, 4),), {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")),
    Case("DequantizeLinear", (whole(0, 256, 4, 5, dtype=np.uint8), Fixed(0.1, np.float32), Fixed(7, np.uint8))),
    Case("DequantizeLinear", (whole(-128, 128, 4, 5, dtype=np.int8), Fixed(positive(4), np.float32)), {"axis": -2}),
    Case("DequantizeLinear", (whole(-999, 999, 2, 3, 4, dtype=np.int32), Fixed(positive(3), np.float32))),
    Case("Expand", (normal(3, 1), Fixed([2, 1, 4]))),
    Case("Expand", (normal(3, 1), Fixed([3, 1]))),
    *(Case("Gather", (normal(3, 4, 5), Fixed(index)), {"axis": axis}) for index, axis in ((2, 1), (-1, -1), (0, 0))),
    *(Case("Gather", (normal(3, 4, 5), Fixed(index)), {"axis": axis}) for index, axis in (([2, 0, -1], 1), ([1], -1))),
    *(Case("Gelu", (normal(*X),), {"approximate": how}, 20) for how in ("none", "tanh")),
    Case("Gemm", (normal(3, 4), normal(4, 5), normal(5))),
    Case("Gemm", (normal(4, 3), normal(5, 4)), {"transA": 1, "transB": 1, "alpha": 0.5}),
    Case("Gemm", (normal(3, 4), normal(5, 4), normal(3, 1)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("LayerNormalization", (normal(2, 5, 8), normal(8), normal(8))),
    Case("LayerNormalization", (normal(2, 5, 8), normal(8)), {"axis": 1, "epsilon": 0.1, "stash_type": 1}),
    Case("MatMul", (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("MatMul", (normal(4), normal(4, 2))),
    Case("Pad", (normal(*X), Fixed([0, 0, 1, 2, 0, 0, 3, 4]))),
    Case("Pad", (normal(*X), Fixed([0, 1, 0, 0, 0, 0, 0, -2]), Fixed(1.5, np.float32)), {"mode": "constant"}),
    Case("Pad", (normal(2, 3, 4), Fixed([1, 0, 0, 2]), Fixed(-1, np.float32), Fixed([-1, 0]))),
    Case("QuantizeLinear", (normal(4, 5) * 20, Fixed(0.1, np.float32), Fixed(128, np.uint8))),
    Case("QuantizeLinear", (whole(-9, 9, 50) / np.float32(2), Fixed(1, np.float32), Fixed(0, np.int8))),  # ties
    Case("QuantizeLinear", (normal(4, 5, 3), Fixed(positive(5), np.float32), Fixed([1, 2, 3, 4, 5], np.uint8))),
    Case("QuantizeLinear", (normal(4, 5), Fixed(positive(5), np.float32)), {"axis": -1}),
    *(Case(kind, (normal(3, 4, 5), Fixed([-1]))) for kind in ("ReduceMean", "ReduceSum")),
    *(Case(kind, (normal(3, 4, 5), Fixed([0, 2])), {"keepdims": 0}) for kind in ("ReduceMean", "ReduceSum")),
    *(Case(kind, (normal(3, 4),)) for kind in ("ReduceMean", "ReduceSum")),
    *(Case(kind, (normal(3, 4),), {"noop_with_empty_axes": 1}) for kind in ("ReduceMean", "ReduceSum")),
    Case("ReduceMean", (normal(3, 4, 5),), {"axes": [1], "keepdims": 0}, 17),
    Case("ReduceSum", (whole(0, 9, 3, 4, dtype=np.int32), Fixed([0]))),
    Case("Reshape", (normal(2, 3, 4), Fixed([0, -1]))),
    Case("Reshape", (normal(2, 3, 4), Fixed([4, 6])), {"allowzero": 1}),
    Case("Reshape", (normal(0, 3, 4), Fixed([3, 0])), {"allowzero": 1}),
    *(
        Case("Resize", (normal(1, 2, 5, 6), None, Fixed([1, 1, *factors], np.float32)), {"mode": mode})
        for mode in ("linear", "cubic")
        for factors in ((2, 2), (4, 4), (1.7, 0.6))
    ),
    *(
        Case("Resize", (normal(1, 2, 5, 6), None, None, Fixed([1, 2, 9, 4])), {"mode": mode, "cubic_coeff_a": -0.75})
        for mode in ("linear", "cubic")
    ),
    Case("Slice", (normal(4, 6), Fixed([1]), Fixed([3]))),
    Case("Slice", (normal(4, 6), Fixed([0]), Fixed([-1]), Fixed([-1]))),
    Case("Slice", (normal(4, 6), Fixed([1, 0]), Fixed([2**63 - 1, 5]), Fixed([1, 0]), Fixed([2, 3]))),
    Case("Slice", (normal(4, 6), Fixed([-1]), Fixed([-(2**63)]), Fixed([1]), Fixed([-1]))),
    Case("Slice", (normal(4, 6), Fixed([9, 3]), Fixed([0, 0]), Fixed([1, 0]), Fixed([-2, -3]))),
    Case("Slice", (normal(4, 6), Fixed([3]), Fixed([2]), Fixed([1]))),  # nothing
    *(Case("Softmax", (normal(2, 3, 4),), attributes) for attributes in ({}, {"axis": 1}, {"axis": -3})),
    Case("Split", (normal(2, 7),), {"axis": 1, "num_outputs": 3}, 18, 3),
    Case("Split", (normal(2, 6),), {"axis": -1}, 17, 2),
    Case("Split", (normal(7, 2), Fixed([1, 4, 2])), {}, 18, 3),
    Case("Squeeze", (normal(1, 3, 1),)),
    Case("Squeeze", (normal(1, 3, 1), Fixed([-1]))),
    Case("Transpose", (normal(2, 3, 4),)),
    Case("Transpose", (normal(2, 3, 4),), {"perm": [1, 2, 0]}),
    Case("Unsqueeze", (normal(2, 3), Fixed([-1, 0]))),
    Case("Unsqueeze", (normal(2, 3), Fixed([3, 1]))),
]
"""Every operator, with every attribute and form of its inputs that is supported."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_operator(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path / "one.onnx")
    for mine, wanted in zip(run_torch(path, case.arrays), run_onnxruntime(path, case.arrays), strict=True):
        assert mine.shape == wanted.shape
        # Sums in another order, and other approximations of exp and the like: a few units in the last place
        np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=1e-5)


def test_every_operator_is_tested() -> None:
    assert {*(case.kind for case in CASES), "Shape"} == NATIVE.keys() | OPERATORS.keys()
    assert LAYOUT.keys() < OPERATORS.keys()


HALVES = [
    Case("Add", (normal(50, dtype=HALF), normal(50, dtype=HALF))),
    Case("Conv", (normal(*X, dtype=HALF), normal(8, 6, 3, 3, dtype=HALF), normal(8, dtype=HALF))),
    Case("ConvTranspose", (normal(*X, dtype=HALF), normal(6, 3, 2, 2, dtype=HALF)), {"strides": [2, 2]}),
    Case("Gelu", (normal(50, dtype=HALF),), {}, 20),
    Case("Gemm", (normal(3, 4, dtype=HALF), normal(4, 5, dtype=HALF), normal(5, dtype=HALF))),
    Case("LayerNormalization", (normal(5, 8, dtype=HALF), normal(8, dtype=HALF), normal(8, dtype=HALF))),
    Case("MatMul", (normal(3, 40, dtype=HALF), normal(40, 5, dtype=HALF))),
    Case("Pow", (positive(3, 4, dtype=HALF), Fixed([1.0, 2.0, 0.5, 3.0], np.float32))),
    Case("Resize", (normal(1, 2, 5, 6, dtype=HALF), None, Fixed([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
    Case("Softmax", (normal(5, 8, dtype=HALF),)),
]


@pytest.mark.parametrize("case", HALVES, ids=lambda case: case.kind)
def test_float16(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path / "one.onnx")
    (mine,), (wanted,) = run_torch(path, case.arrays), run_onnxruntime(path, case.arrays)
    assert (mine == mine.astype(HALF)).all()  # it was float16 before its last cast
    np.testing.assert_allclose(mine, wanted, rtol=2e-3, atol=2e-3)  # one rounding to 11 bits, or two


def test_casts_are_kept(tmp_path: Path) -> None:
    """What goes through bfloat16 and float16 has lost its last bits, and its range."""
    values = np.array([1 + 2**-7, 1 + 2**-8, 1 + 2**-9, 3e38, 70000, 1e-8], np.float32)
    path = Case("Cast", (values,), {"to": TensorProto.BFLOAT16}).write(tmp_path / "bf16.onnx")
    np.testing.assert_array_equal(run_torch(path, [values])[0][:3], np.float32([1 + 2**-7, 1, 1]))
    path = Case("Cast", (values,), {"to": TensorProto.FLOAT16}).write(tmp_path / "fp16.onnx")
    np.testing.assert_array_equal(run_torch(path, [values])[0][3:], np.float32([np.inf, np.inf, 0]))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("Einsum", (normal(3),), {"equation": "i->i"}), r"node tested \(Einsum\): .*Einsum is not supported"),
        (Case("Conv", (normal(*X), normal(8, 6, 3, 3)), {"auto_pad": "SAME_UPPER"}), "its auto_pad is 'SAME_UPPER'"),
        (Case("Conv", (normal(*X), normal(8, 6, 3, 3)), {"kernel_shape": [1, 1]}), r"kernel_shape is \(1, 1\)"),
        (Case("Conv", (normal(2, 6, 5), normal(8, 6, 3))), "its input has 3 axes, expected 4"),
        (Case("ConvTranspose", (normal(*X), normal(6, 3, 2, 2)), {"pads": [0, 0, 1, 1]}), r"pads is \(0, 0, 1, 1\)"),
        (Case("ConvTranspose", (normal(*X), normal(6, 3, 2, 2)), {"output_shape": [9, 9]}), "attribute output_shape"),
        (Case("Pad", (normal(*X), Fixed([0, 0, 1, 1] * 2)), {"mode": "reflect"}), "its mode is 'reflect'"),
        (
            Case("Pad", (normal(2), whole(0, 1, 2, dtype=np.int64))),
            "its input x1 is not supported where it is no const",
        ),
        (Case("Resize", (normal(1, 2, 5, 6), None, Fixed([1, 1, 2, 2], np.float32))), "its mode is not given"),
        (
            Case(
                "Resize",
                (normal(1, 2, 5, 6), None, Fixed([1, 1, 2, 2], np.float32)),
                {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            ),
            "its coordinate_transformation_mode is 'align_corners', and only 'half_pixel' is supported",
        ),
        (
            Case("Resize", (normal(1, 2, 5, 6), None, Fixed([1, 2, 2, 2], np.float32)), {"mode": "linear"}),
            "it resizes other axes than the last two of four",
        ),
        (
            Case(
                "Resize",
                (normal(1, 2, 5, 6), None, Fixed([1, 1, 2, 2], np.float32)),
                {"mode": "cubic", "cubic_coeff_a": -0.5},
            ),
            r"cubic_coeff_a is -0\.5",
        ),
        (Case("Gather", (normal(3, 4), Fixed([[0, 1]]))), "its indices have two axes or more"),
        (Case("Gather", (normal(3, 4), whole(0, 2, 1, dtype=np.int64))), "its input x1 is not supported"),
        (Case("LayerNormalization", (normal(5, 8), normal(8)), {}, 18, 3), "its output y1 is not supported"),
        (Case("LayerNormalization", (normal(5, 8), normal(8)), {"stash_type": 16}), "its stash_type is 16"),
        (Case("QuantizeLinear", (normal(5), Fixed(1, np.float32), Fixed(0, np.int8)), {"saturate": 0}, 19), "saturate"),
        (Case("Cast", (normal(5),), {"to": TensorProto.FLOAT8E4M3FN}, 19), "data type 17 is not supported"),
        (Case("Expand", (normal(3), Fixed([3], np.uint16))), "data type 4 of x1 is not supported"),
        (Case("Squeeze", (normal(2, 3), Fixed([0]))), "more than 1 long"),
        (Case("Add", (normal(3), normal(3, dtype=HALF))), "data types torch.float16 and torch.float32, expected one"),
        (Case("Reshape", (normal(2, 3), Fixed([4, -1]))), r"node tested \(Reshape\): "),
        (Case("Relu", (normal(3),), {}, 16), "its opset is 16, expected 17 to 20"),
        (Case("Relu", (normal(3),), {}, 21), "its opset is 21, expected 17 to 20"),
        (Case("FusedConv", (normal(3),), {"domain": "com.microsoft"}), r"com\.microsoft\.FusedConv is not supported"),
    ],
    ids=lambda each: each.title if isinstance(each, Case) else "",
)
def test_refused(case: Case, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        read(case.write(tmp_path / "one.onnx"))
    assert "\n" not in str(caught.value)


def write(path: Path, nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> Path:
    """Write a graph of float32 inputs and outputs."""
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "several", ports[0], ports[1])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def constant(name: str, **value: Any) -> Any:
    return helper.make_node("Constant", [], [name], **value)


@pytest.mark.parametrize("batch", [1, 3])
def test_computed_shapes(batch: int, tmp_path: Path) -> None:
    """The batch size is read from an input, joined with constants, and made a shape of."""
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], end=1),
        constant("two", value=numpy_helper.from_array(np.array([2]))),
        constant("three", value_ints=[3]),
        constant("row", value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Concat", ["batch", "two", "three"], ["shape"], axis=0),
        helper.make_node("Expand", ["row", "shape"], ["rows"]),
        helper.make_node("Reshape", ["x", "shape"], ["folded"]),
        helper.make_node("Add", ["rows", "folded"], ["y"]),
    ]
    path = write(tmp_path / "shapes.onnx", nodes, {"x": ["batch", 6]}, {"y": ["batch", 2, 3]})
    x = normal(batch, 6)
    (mine,) = run_torch(path, [x])
    np.testing.assert_array_equal(mine, x.reshape(batch, 2, 3) + np.float32([1, 2, 3]))
    np.testing.assert_array_equal(mine, run_onnxruntime(path, [x])[0])


def test_shape_of_a_constant(tmp_path: Path) -> None:
    nodes = [
        constant("rows", value=numpy_helper.from_array(np.zeros((2, 3), np.float32))),
        helper.make_node("Shape", ["rows"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    x = normal(6)
    (mine,) = run_torch(write(tmp_path / "shape.onnx", nodes, {"x": [6]}, {"y": [2, 3]}), [x])
    np.testing.assert_array_equal(mine, x.reshape(2, 3))


def test_sparse_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "sparse.onnx", [helper.make_node("Mul", ["x", "w"], ["y"])], {"x": [3]}, {"y": [3]})
    model = onnx.load(path)
    values, indices = numpy_helper.from_array(np.float32([5]), "w"), numpy_helper.from_array(np.array([1]), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match="its sparse weights are not supported"):
        read(path)


def test_computed_shapes_are_no_tensors(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Cast", ["shape"], ["y"], to=1)]
    path = write(tmp_path / "shapes.onnx", nodes, {"x": ["batch", 6]}, {"y": [2]})
    with pytest.raises(UnsupportedError, match=r"node y \(Cast\): its input shape, a shape, is not supported"):
        read(path)


def test_constants_are_computed_once(tmp_path: Path) -> None:
    """Weights that are quantised in the file are float32 in the graph, and nothing that is unused stays in it."""
    nodes = [
        constant("quantised", value=numpy_helper.from_array(np.array([1, -2, 3], np.int8))),
        constant("scale", value_float=0.5),
        helper.make_node("DequantizeLinear", ["quantised", "scale"], ["weight"]),
        helper.make_node("Mul", ["x", "weight"], ["y"]),
        helper.make_node("Exp", ["x"], ["unused"]),
    ]
    graph = read(write(tmp_path / "weights.onnx", nodes, {"x": ["batch", 3]}, {"y": ["batch", 3]}))
    assert [node.name for node in graph.module.graph.nodes if node.op == "call_function"] == ["mul"]
    assert [weight.tolist() for weight in graph.module.state_dict().values()] == [[0.5, -1, 1.5]]
    assert (graph.inputs, graph.outputs) == ({"x": (None, 3)}, {"y": (1, 3)})


def test_outputs_that_are_inputs_or_constants(tmp_path: Path) -> None:
    nodes = [constant("same", value_floats=[4.0])]
    path = write(tmp_path / "plain.onnx", nodes, {"x": ["batch"]}, {"x": ["batch"], "same": [1]})
    first, second = run_torch(path, [np.float32([1, 2])])
    assert (first.tolist(), second.tolist()) == ([1, 2], [4])


def test_other_types(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)
    with pytest.raises(UnsupportedError, match="its output y is not float32"):
        read(write(tmp_path / "half.onnx", [node], {"x": [3]}, {"y": [3]}))
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        "whole",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "whole.onnx")
    with pytest.raises(UnsupportedError, match="its input x is not float32"):
        read(tmp_path / "whole.onnx")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    x = normal(4, 100)
    path = Case("MatMul", (x, Fixed(normal(100, 50), np.float32))).write(tmp_path / "one.onnx")
    wanted = run_torch(path, [x])[0]
    onnx.save(onnx.load(path), tmp_path / "two.onnx", save_as_external_data=True, location="two.data")
    assert (tmp_path / "two.data").stat().st_size >= 100 * 50 * 4
    np.testing.assert_array_equal(run_torch(tmp_path / "two.onnx", [x])[0], wanted)
    (tmp_path / "two.data").unlink()
    with pytest.raises(UnsupportedError, match=r"two\.data"):
        read(tmp_path / "two.onnx")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no ONNX file")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "half.onnx").write_bytes((TINY / "decoder.onnx").read_bytes()[:5000])
    for name in ("text", "empty", "half", "missing"):
        with pytest.raises(UnsupportedError) as caught:
            read(tmp_path / f"{name}.onnx")
        assert str(caught.value).strip()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [1, 3])
def test_tiny_encoder(batch: int) -> None:
    image = normal(batch, 3, 96, 96)
    mine, wanted = run_torch(TINY / "encoder.onnx", [image]), run_onnxruntime(TINY / "encoder.onnx", [image])
    for one, other in zip(mine, wanted, strict=True):
        # Forty layers of sums in another order, against values of up to 25: a millionth of that
        np.testing.assert_allclose(one, other, atol=5e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_tiny_decoder(batch: int) -> None:
    arrays = [
        normal(batch, 64, 24, 24),
        RANDOM.uniform(0, 96, (batch, 16, 2)).astype(np.float32),
        whole(-2, 4, batch, 16),
        normal(batch, 1, 96, 96),
        whole(0, 2, batch),
    ]
    mine, wanted = run_torch(TINY / "decoder.onnx", arrays), run_onnxruntime(TINY / "decoder.onnx", arrays)
    for one, other in zip(mine, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)  # as above, against values of up to 4
