"""Emulates half-precision graphs on any CPU with the results of real hardware, overflow included.

On a CPU, ONNX Runtime and OpenVINO compute float16 nodes in float32 and drop the casts between them, so values that
overflow on a GPU do not overflow there. Here every half-precision value is rounded by float32 arithmetic that no
runtime optimises away.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["emulated", "measure_ranges", "with_ranges"]


class _Half(NamedTuple):
    """The constants that round a float32 to a half-precision type."""

    split: float  # Veltkamp's constant: 2 to the number of dropped bits, plus 1
    smallest: float  # the smallest normal number; below it, numbers are evenly spaced
    magic: float  # adding and subtracting this rounds to that even spacing
    overflow: float  # magnitudes from here on become infinite


# bfloat16 has float32's range: it only drops bits.
_KINDS = {
    TensorProto.FLOAT16: _Half(2.0**13 + 1, 2.0**-14, 0.75, 65520.0),
    TensorProto.BFLOAT16: _Half(2.0**16 + 1, 0.0, 0.0, np.inf),
}


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph with half-precision types to a float32 graph with the same results.

    Parameters
    ----------
    model : onnx.ModelProto
        With inputs and outputs in float32, as from `samg_fast.export.precision.to_half`. Not changed.

    Returns
    -------
    onnx.ModelProto
        Products accumulate in float32, as tensor cores do; each result is rounded once. Values beyond the range become
        infinite or NaN.
    """
    source = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in source.initializer if tensor.data_type in _KINDS}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}

    def constant(value: float) -> str:
        name = f"emulate.{value!r}"
        constants.setdefault(name, numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def node(kind: str, *inputs: str, output: str) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output]))
        return output

    def rounded(name: str, to_name: str, half: _Half) -> None:
        large = node("Mul", name, constant(half.split), output=f"{to_name}.large")
        rest = node("Sub", large, name, output=f"{to_name}.rest")
        if half.overflow == np.inf:
            node("Sub", large, rest, output=to_name)
            return
        short = node("Sub", large, rest, output=f"{to_name}.short")
        up = node("Add", name, constant(half.magic), output=f"{to_name}.up")
        even = node("Sub", up, constant(half.magic), output=f"{to_name}.even")
        size = node("Abs", name, output=f"{to_name}.size")
        tiny = node("Less", size, constant(half.smallest), output=f"{to_name}.tiny")
        either = node("Where", tiny, even, short, output=f"{to_name}.either")
        fits = node("Less", size, constant(half.overflow), output=f"{to_name}.fits")
        # Not a product with a constant: runtimes fold such products into the next matrix product, which then overflows
        node("Where", fits, either, constant(np.inf), output=to_name)

    for each in source.node:
        new = onnx.NodeProto()
        new.CopyFrom(each)
        if each.op_type == "Cast":
            to = next(attribute.i for attribute in each.attribute if attribute.name == "to")
            if to in _KINDS:
                kinds[each.output[0]] = to
                rounded(each.input[0], each.output[0], _KINDS[to])
                continue
            if each.input[0] in kinds:
                node("Identity", each.input[0], output=each.output[0])
                continue
        half_inputs = [kinds[name] for name in each.input if name in kinds]
        if half_inputs:
            for index, name in enumerate(each.output):
                kinds[name] = half_inputs[0]
                new.output[index] = f"{name}.exact"
        nodes.append(new)
        for name in each.output if half_inputs else ():
            rounded(f"{name}.exact", name, _KINDS[half_inputs[0]])
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.node[:], out.graph.initializer[:], out.graph.value_info[:]
    out.graph.node.extend(nodes)
    out.graph.initializer.extend(_as_float(tensor) for tensor in source.initializer)
    out.graph.initializer.extend(constants.values())
    return out


def with_ranges(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Add outputs ``NAME.range`` to a float32 graph: the largest magnitude of each named value."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for name in names:
        out.graph.node.append(helper.make_node("Abs", [name], [f"{name}.abs"]))
        out.graph.node.append(helper.make_node("ReduceMax", [f"{name}.abs"], [f"{name}.range"], keepdims=0))
        out.graph.output.append(helper.make_tensor_value_info(f"{name}.range", TensorProto.FLOAT, []))
    return out


def measure_ranges(
    model: onnx.ModelProto, names: list[str], feeds: list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]
) -> dict[str, float]:
    """Run a float32 graph and return the largest magnitude of each named value, which may be a weight.

    Parameters
    ----------
    model : onnx.ModelProto
    names : list of str
        Names of values or weights of the graph.
    feeds : list of dict
        Inputs of each run.

    Returns
    -------
    dict of str to float
        Name -> largest magnitude; infinite if a value was infinite or NaN.
    """
    import onnxruntime

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    ranges = {
        name: float(np.abs(numpy_helper.to_array(weights[name])).max(initial=0)) for name in names if name in weights
    }
    computed = [name for name in names if name not in weights]
    session = onnxruntime.InferenceSession(
        with_ranges(model, computed).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for feed in feeds:
        found = session.run([f"{name}.range" for name in computed], feed)
        for name, value in zip(computed, found, strict=True):
            largest = float(value) if np.isfinite(value) else np.inf
            ranges[name] = max(ranges.get(name, 0.0), largest)
    return ranges


def _as_float(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type not in _KINDS:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
