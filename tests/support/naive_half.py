"""What exporters that know no better do with half precision: it shows what goes wrong then."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from samg_fast.export.precision import _float_values, _Writer


def naive_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast everything to float16."""
    writer = _Writer(model.graph, TensorProto.FLOAT16)
    floats = _float_values(model.graph)
    for node in model.graph.node:
        writer.add(node, half=bool(node.input) and node.op_type != "Cast" and node.output[0] in floats)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    writer.write(out.graph)
    return out
