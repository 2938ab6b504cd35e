"""Writes small networks as small ONNX files, and compares them with PyTorch; for networks that this project trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from samg_fast.checks import Floats
from samg_fast.errors import BundleError

from .graph import save_graph, trace

__all__ = ["TOLERANCE", "Parity", "compare", "fold", "round_weights", "write_compact"]

TOLERANCE = 1e-3
"""Maximum difference from PyTorch, relative to an output's range: float32 sums in another order."""


@dataclass(frozen=True)
class Parity:
    """Largest and mean difference of one output, relative to its range."""

    output: str
    largest: float
    mean: float


def write_compact(
    network: nn.Module, arguments: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    """Export a network, and store its weights as float16 wherever that loses nothing; see `round_weights`."""
    model = trace(network, dict(zip(inputs, arguments, strict=True)), outputs, dynamic_batch=True)
    _halve_weights(model.graph)
    del model.graph.value_info[:]  # shapes that readers infer, and a fiftieth of a small file
    save_graph(model, path)


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Store weights as float16 with a cast to float32 wherever that is lossless, which halves the file.

    Runtimes fold the casts when they load the file, so nothing is computed in half precision.
    """
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 256:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def round_weights(network: nn.Module) -> None:
    """Round every weight matrix to float16 values, in place, so that `write_compact` halves their files."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())


def fold(network: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, in place."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential) and len(child) >= 2 and isinstance(child[1], nn.BatchNorm2d):
                convolution, norm = child[0], child[1]
                if isinstance(convolution, nn.Conv2d):
                    setattr(module, name, nn.Sequential(fuse_conv_bn_eval(convolution, norm), *list(child)[2:]))


def compare(path: Path, inputs: Mapping[str, Floats], expected: Mapping[str, Floats]) -> list[Parity]:
    """Run an ONNX file on ONNX Runtime, and compare its outputs with PyTorch's of the same names.

    Raises
    ------
    BundleError
        An output differs by more than `TOLERANCE` of its range.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    report = []
    for name, found in zip(names, session.run(names, dict(inputs)), strict=True):
        difference = np.abs(found - expected[name]) / np.ptp(expected[name])
        report.append(Parity(name, float(difference.max()), float(difference.mean())))
    worst = max(report, key=lambda parity: parity.largest)
    if not worst.largest <= TOLERANCE:
        raise BundleError(
            f"{worst.output}: ONNX differs from PyTorch by {worst.largest:.2g} of its range, over {TOLERANCE}"
        )
    return report
