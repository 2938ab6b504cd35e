"""Half precision by explicit rules: a graph's types say which of its nodes compute in float16 or bfloat16.

TensorRT 11 supports only strongly typed networks, and without rules float16 overflows: EfficientViT-SAM's larger
variants have activations beyond 65,504. The rules:

- Convolutions and matrix products compute in half precision, on weights stored in it. They take most of the time.
- Everything else computes in float32: layer norms, softmax, GELU, residual sums, divisions.
- The products of the linear attention stay in float32: they sum values that no softmax has bounded over all cells of
  an image, and the epsilon of their quotient (1e-15) does not exist in float16.
- So do the products that turn coordinates into angles: an error there moves a point.
- So does an attention whose logits are large on the sample images: half precision rounds them in proportion to their
  size, and softmax turns the absolute error into a factor on its weights.
- In float16, a product whose operands or result come within a factor of 8 of 65,504 on the sample images gets its
  operand divided by a power of two, and its result is multiplied back in float32: exactly the same, in a range that
  fits. If operand and result are so far apart that no power fits both, the product stays in float32.
- Nodes that only move values keep the type of their inputs, so that there is no cast between two products.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .graph import drop_unused

__all__ = ["FLOAT16_LARGEST", "HEADROOM", "PRODUCTS", "to_half", "watched"]

FLOAT16_LARGEST = 65504.0
"""The largest finite float16."""

HEADROOM = 8.0
"""Factor by which the largest value seen must be below `FLOAT16_LARGEST` for a product to compute in float16."""

SOFTMAX_ERROR = 0.05
"""Maximum rounding error of an attention's largest logit, which is also the relative error of a softmax weight."""

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""The nodes that compute in half precision."""

_MOVES = frozenset(
    ("Concat", "Gather", "Pad", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
)
_SCALES = _MOVES | {"Add", "Div", "Mul"}  # nodes allowed between a softmax attention's products and its softmax
_SMALLEST_OPERAND = 0.25  # a thousand times larger than values that float16's spacing near 0 distorts
_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-9}  # largest relative error of one rounding


def to_half(
    model: onnx.ModelProto,
    precision: str,
    ranges: Mapping[str, float] | None = None,
    *,
    headroom: float = HEADROOM,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """Convert a float32 graph to half precision, by the rules of this module.

    Parameters
    ----------
    model : onnx.ModelProto
        Float32; not changed. Its inputs and outputs stay float32.
    precision : {"fp16", "bf16"}
        The half precision.
    ranges : mapping of str to float, optional
        Largest magnitude seen of each value that `watched` names; values that are missing count as safe.
    headroom : float
        See `HEADROOM`.
    keep : collection of str
        Outputs of further products that stay in float32, besides those of the rules.

    Returns
    -------
    onnx.ModelProto
    """
    limit = FLOAT16_LARGEST / headroom if precision == "fp16" else np.inf
    seen = ranges or {}
    graph = model.graph
    around = _Neighbours(graph)
    kept = (
        _unbounded(graph, around)
        | _steep_attention(graph, around, seen, SOFTMAX_ERROR / _ROUNDING[precision])
        | set(keep)
    )
    writer = _Writer(graph, _TYPES[precision])
    for node in graph.node:
        power = _power(node, seen, limit, writer.weights) if node.op_type in PRODUCTS else None
        if power is None or node.output[0] in kept:
            writer.add(node, half=node.op_type in _MOVES and writer.has_half_inputs(node))
        elif power == 0:
            writer.add(node, half=True)
        else:
            writer.add_scaled(node, power)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    writer.write(out.graph)
    return out


def _power(node: onnx.NodeProto, seen: Mapping[str, float], limit: float, weights: Collection[str]) -> int | None:
    """Return the exponent of the power of two to divide a product's operand by, 0 or more; None if none fits."""
    operands = [name for name in node.input[:2] if name not in weights]
    largest_in = max((seen.get(name, 0.0) for name in operands), default=0.0)
    largest = max(largest_in, seen.get(node.output[0], 0.0))
    constants = max((seen.get(name, 0.0) for name in node.input if name in weights), default=0.0)
    if constants > limit or (not np.isfinite(largest) and np.isfinite(limit)):
        return None
    if largest <= limit:
        return 0
    power = int(np.ceil(np.log2(largest / limit)))
    # Two computed operands would both have to be divided; and dividing a small operand would lose its small values
    return power if len(operands) == 1 and largest_in * 2.0**-power >= _SMALLEST_OPERAND else None


def watched(graph: onnx.GraphProto) -> list[str]:
    """Name the values whose ranges `to_half` needs: inputs and outputs of every product, weights included."""
    names = (name for node in graph.node if node.op_type in PRODUCTS for name in [*node.input, *node.output] if name)
    return list(dict.fromkeys(names))


@dataclass
class _Writer:
    """Rewrites a graph's nodes one after the other, adding casts where types change."""

    source: onnx.GraphProto
    kind: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    halves: dict[str, str] = field(default_factory=dict)  # float32 name -> name of the same value in half precision
    computed_in_half: set[str] = field(default_factory=set)
    cast_back: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.weights = {tensor.name: tensor for tensor in self.source.initializer}
        self.new_weights: list[onnx.TensorProto] = []
        self.floats = _float_values(self.source)
        self.outputs = {output.name for output in self.source.output}

    def has_half_inputs(self, node: onnx.NodeProto) -> bool:
        """Whether all inputs of a node, constants aside, were computed in half precision."""
        given = [name for name in node.input if name in self.floats and name not in self.weights]
        return bool(given) and self.computed_in_half.issuperset(given)

    def add(self, node: onnx.NodeProto, *, half: bool) -> None:
        """Add a node that computes in half precision or in float32."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        take: Callable[[str], str] = self._as_half if half else self._as_float
        for index, name in enumerate(node.input):
            new.input[index] = take(name) if name in self.floats else name
        if half:
            for index, name in enumerate(node.output):
                if name in self.floats:
                    new.output[index] = self.halves[name] = f"{name}.half"
                    self.computed_in_half.add(name)
        self.nodes.append(new)
        if half:
            for name in set(node.output) & self.outputs:
                self._as_float(name)

    def add_scaled(self, node: onnx.NodeProto, power: int) -> None:
        """Add a half-precision product of its one computed operand divided by 2**power; multiply the result back."""
        new = onnx.NodeProto()
        new.CopyFrom(node)
        out = node.output[0]
        for index, name in enumerate(node.input):
            if name not in self.weights:
                small = self._times(self._as_float(name), 2.0**-power, f"{out}.operand.small")
                self._cast(small, f"{small}.half", self.kind)
                new.input[index] = f"{small}.half"
            elif index == 2:  # the bias must be divided too
                new.input[index] = f"{out}.bias.half"
                bias = numpy_helper.to_array(self.weights[name]) * np.float32(2.0**-power)
                self.new_weights.append(_half_tensor(numpy_helper.from_array(bias, name), new.input[index], self.kind))
            else:
                new.input[index] = self._as_half(name)
        new.output[0] = f"{out}.small.half"
        self.nodes.append(new)
        self._cast(new.output[0], f"{out}.small", TensorProto.FLOAT)
        self._times(f"{out}.small", 2.0**power, out)

    def _times(self, name: str, factor: float, to_name: str) -> str:
        constant = f"{to_name}.factor"
        self.new_weights.append(numpy_helper.from_array(np.array(factor, np.float32), constant))
        self.nodes.append(helper.make_node("Mul", [name, constant], [to_name], name=f"{to_name}.times"))
        return to_name

    def write(self, graph: onnx.GraphProto) -> None:
        """Put the rewritten nodes and weights into a copy of the source."""
        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.new_weights)
        del graph.value_info[:]
        drop_unused(graph)

    def _as_half(self, name: str) -> str:
        if name not in self.halves:
            half = self.halves[name] = f"{name}.half"
            if name in self.weights:
                self.new_weights.append(_half_tensor(self.weights[name], half, self.kind))
            else:
                self._cast(name, half, self.kind)
        return self.halves[name]

    def _as_float(self, name: str) -> str:
        if name in self.computed_in_half and name not in self.cast_back:
            self.cast_back.add(name)
            self._cast(self.halves[name], name, TensorProto.FLOAT)
        return name

    def _cast(self, name: str, to_name: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [name], [to_name], name=f"{to_name}.cast", to=kind))


def _half_tensor(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16:
        with np.errstate(over="ignore"):
            return numpy_helper.from_array(values.astype(np.float16), name)
    return helper.make_tensor(name, kind, values.shape, _bfloat16_bytes(values), raw=True)


def _bfloat16_bytes(values: NDArray[np.float32]) -> bytes:
    """Round float32 to bfloat16, to nearest even, and return the bytes: the upper half of the bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def _float_values(graph: onnx.GraphProto) -> set[str]:
    """Name every float32 value of a graph."""
    typed = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    names = {name for name, kind in typed.items() if kind == TensorProto.FLOAT}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _unbounded(graph: onnx.GraphProto, around: _Neighbours) -> set[str]:
    """Name the outputs of products that must stay in float32: the linear attention's, and those that compute angles."""
    keep = set()
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        if node.op_type == "MatMul" and not around.weights & set(node.input):
            of_softmax = "Softmax" in _kinds(around.before(node.input, _MOVES)) or "Softmax" in _kinds(
                around.after(node.output, _SCALES)
            )
            if not of_softmax and "Div" in _kinds(around.after(node.output, _MOVES | {"MatMul", "Add"})):
                keep.add(node.output[0])
        elif {"Sin", "Cos"} & _kinds(around.after(node.output, _SCALES)):
            keep.add(node.output[0])
    return keep


def _steep_attention(
    graph: onnx.GraphProto, around: _Neighbours, ranges: Mapping[str, float], largest: float
) -> set[str]:
    """Name the outputs of products that compute attention logits beyond `largest`, and of the products before them."""
    keep = set()
    for node in graph.node:
        for logits in around.before(node.input, _SCALES) if node.op_type == "Softmax" else ():
            # Checked before the bias that hides empty slots is added, as that is large but exact
            if ranges.get(logits.output[0], 0.0) > largest:
                keep.add(logits.output[0])
                keep |= {operand.output[0] for operand in around.before(logits.input, _SCALES)}
    return keep


class _Neighbours:
    """The nodes that compute and that use each value of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.weights = {tensor.name for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def before(self, names: Iterable[str], through: frozenset[str]) -> list[onnx.NodeProto]:
        """Nodes that computed the values, looking through nodes of the kinds `through`."""
        return _walk(names, through, lambda name: [self.producers[name]] if name in self.producers else [], "input")

    def after(self, names: Iterable[str], through: frozenset[str]) -> list[onnx.NodeProto]:
        """Nodes that use the values, looking through nodes of the kinds `through`."""
        return _walk(names, through, lambda name: self.users.get(name, []), "output")


def _walk(
    names: Iterable[str], through: frozenset[str], step: Callable[[str], list[onnx.NodeProto]], onward: str
) -> list[onnx.NodeProto]:
    found, waiting, seen = [], list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in step(name):
            if node.op_type in through:
                waiting += getattr(node, onward)
            else:
                found.append(node)
    return found


def _kinds(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {node.op_type for node in nodes}
