"""PyTorch -> ONNX files that every runtime accepts: static shapes, no shape arithmetic, LayerNormalization nodes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from samg_fast.bundle import MANIFEST
from samg_fast.errors import BundleError, InputError
from samg_fast.files import replacing

__all__ = ["OPSET", "SHAPE_ARITHMETIC", "check_graph", "drop_unused", "prepare_folder", "save_graph", "trace"]

OPSET = 20
"""The first opset with a Gelu node; LayerNormalization exists since 17."""

SHAPE_ARITHMETIC = frozenset(
    ("ConstantOfShape", "Expand", "If", "Loop", "NonZero", "Range", "Scan", "Shape", "Size", "Where")
)
"""Nodes that compute, or depend on, shapes known only at run time. An exported graph has none."""

_MAX_BYTES = 1 << 30  # larger graphs keep their weights in a second file, as protobuf is limited to 2 GiB


def trace(
    network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], *, dynamic_batch: bool
) -> onnx.ModelProto:
    """Export a network.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    inputs : mapping of str to Tensor
        Name -> example input, in the order of `network`'s arguments. The graph gets their shapes.
    outputs : sequence of str
        Names of the network's outputs.
    dynamic_batch : bool
        Whether the first dimension of every input is dynamic. The examples then need a batch of 2 or more.

    Returns
    -------
    onnx.ModelProto
        Checked by `check_graph`.

    Raises
    ------
    BundleError
        Shape arithmetic is left in the graph.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    # The exporter prints its progress, and warns about packages that are not needed here
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with (
        contextlib.ExitStack() as stack,
        torch.no_grad(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        stack.callback(logger.setLevel, level)
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in inputs) if dynamic_batch else None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise BundleError(f"{type(network).__name__} was not exported")
    model = program.model_proto
    for node in model.graph.node:  # the metadata are names and lines of source files
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    if dynamic_batch:
        _make_reshapes_constant(model)
    check_graph(model)
    return model


def check_graph(model: onnx.ModelProto) -> None:
    """Check that a graph follows the format of a bundle's graphs.

    Raises
    ------
    BundleError
        It contains shape arithmetic, a layer norm as single operations, or an opset below 17.
    """
    kinds = {node.op_type for node in model.graph.node}
    if left := sorted(kinds & SHAPE_ARITHMETIC):
        raise BundleError(f"the exported graph still computes shapes: it holds {', '.join(left)}")
    if kinds & {"ReduceMean", "Sqrt", "ReciprocalSqrt"}:
        raise BundleError("the exported graph holds a layer norm in pieces instead of a LayerNormalization node")
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset < 17:
        raise BundleError(f"the exported graph has opset {opset}, expected 17 or above")


def save_graph(model: onnx.ModelProto, path: Path) -> str | None:
    """Write a graph, whole or not at all; weights go into a second file if the graph is too large for one.

    Parameters
    ----------
    model : onnx.ModelProto
    path : pathlib.Path
        The file to create or replace.

    Returns
    -------
    str or None
        Name of the file of weights, if there is one.

    Raises
    ------
    FileError
        The file cannot be written there.
    """
    if model.ByteSize() < _MAX_BYTES:
        with replacing(path) as temporary:
            temporary.write_bytes(model.SerializeToString())
        return None
    data = path.with_name(f"{path.name}.data")
    small = onnx.ModelProto()
    small.CopyFrom(model)
    with replacing(data) as temporary, temporary.open("wb") as file:
        for tensor in small.graph.initializer:
            if tensor.ByteSize() < 1024:
                continue
            raw = numpy_helper.to_array(tensor).tobytes()
            file.write(b"\0" * (-file.tell() % 4096))  # page-aligned, as runtimes memory-map the file
            where = {"location": data.name, "offset": str(file.tell()), "length": str(len(raw))}
            file.write(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.extend(
                onnx.StringStringEntryProto(key=key, value=value) for key, value in where.items()
            )
    with replacing(path) as temporary:
        temporary.write_bytes(small.SerializeToString())
    return data.name


def prepare_folder(folder: Path) -> Path:
    """Create a bundle's folder, and remove an existing manifest, whose files are about to change.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out is {folder}, which cannot be written: {error.strerror or error}") from error
    return folder


def _make_reshapes_constant(model: onnx.ModelProto) -> None:
    """Give every reshape of a graph with a dynamic batch a constant shape, with -1 for the batch.

    The exporter reads the batch from an input and computes every shape from it. But the other dimensions are known, and
    ONNX infers one dimension by itself. The nodes that computed the shapes are then unused, and dropped.
    """
    known = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] in {tensor.name for tensor in model.graph.initializer}:
            continue
        sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in _dims(known[node.output[0]])]
        if sizes.count(-1) > 1:
            raise BundleError(f"reshape {node.name} has more than one open dimension")
        name = f"{node.output[0]}.shape"
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        node.input[1] = name
    drop_unused(model.graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove unused nodes and weights, in place."""
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used & set(node.output):
            kept.append(node)
            used.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for values in (graph.initializer, graph.value_info):
        remaining = [each for each in values if each.name in used]
        del values[:]
        values.extend(remaining)


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dims
