"""PyTorch -> ONNX files that every runtime can take: static shapes, nothing computed from them, real layer norms."""

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
"""The first opset with a Gelu node; LayerNormalization is there since 17."""

SHAPE_ARITHMETIC = frozenset(
    ("ConstantOfShape", "Expand", "If", "Loop", "NonZero", "Range", "Scan", "Shape", "Size", "Where")
)
"""Nodes that make, or depend on, shapes known only when the graph runs. None may be left."""

_MAX_BYTES = 1 << 30  # a file above it keeps its weights beside it: protobuf ends at 2 GiB


def trace(
    network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], *, dynamic_batch: bool
) -> onnx.ModelProto:
    """Export a network.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    inputs : mapping of str to Tensor
        Name -> an example, in the order of `network`'s arguments. Their shapes become the graph's.
    outputs : sequence of str
        Names of what the network returns.
    dynamic_batch : bool
        Whether the first dimension of every input is left open. The examples need a batch of 2 or more then.

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
    # The exporter talks about its progress and about packages that are not needed here
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
    for node in model.graph.node:  # names of source files and lines are of no use to anybody else
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    if dynamic_batch:
        _settle_reshapes(model)
    check_graph(model)
    return model


def check_graph(model: onnx.ModelProto) -> None:
    """See that a graph keeps the contract.

    Raises
    ------
    BundleError
        It holds shape arithmetic, or a layer norm in pieces.
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
    """Write a graph, whole or not at all; one that is too large for a single file keeps its weights beside it.

    Parameters
    ----------
    model : onnx.ModelProto
    path : pathlib.Path
        The file to make or replace.

    Returns
    -------
    str or None
        Name of the file of weights beside it, if there is one.

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
            file.write(b"\0" * (-file.tell() % 4096))  # runtimes map the file page by page
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
    """Make a bundle's folder, and take away a manifest that would vouch for files that are about to change.

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


def _settle_reshapes(model: onnx.ModelProto) -> None:
    """Give every reshape of a graph with an open batch a constant shape, -1 where the batch is.

    The exporter reads the batch from an input and computes each shape from it; but the rest of a shape is known, and
    ONNX works out one dimension by itself. What computed the shapes is then used by nobody and dropped.
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
    """Remove nodes and weights whose outputs nobody uses, in place."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for values in (graph.initializer, graph.value_info):
        useful = [each for each in values if each.name in wanted]
        del values[:]
        values.extend(useful)


def _dims(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    dims: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dims
