"""Adds precisions to an existing bundle, such as ``tiny``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeBackend
from samg_fast.bundle import ROLES, Bundle
from samg_fast.bundle.zoo import resolve
from samg_fast.errors import InputError
from samg_fast.parity import record, sample_frames

from .graph import prepare_folder
from .variants import ExportReport, Findings, Say, Variants, parse_precisions

__all__ = ["add_precisions"]


def add_precisions(
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str | Sequence[str],
    say: Say = lambda _: None,
) -> ExportReport:
    """Write a copy of a bundle with files for more precisions.

    Parameters
    ----------
    bundle : str or os.PathLike
        Name or folder of a bundle.
    out : str or os.PathLike
        The folder to write; not the bundle's own.
    precision : str or sequence of str
        Any of ``"fp16"``, ``"bf16"``, ``"int8"``.
    say : callable
        Called with a line about each stage.

    Returns
    -------
    ExportReport
        The comparison with the bundle's own fp32 files on ONNX Runtime.

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid.
    BundleError
        The bundle cannot be read, or an image network misses `samg_fast.parity.THRESHOLDS`; no manifest is written
        then.
    """
    others = parse_precisions(precision)
    source = Bundle.open(resolve(bundle))
    if Path(out).resolve() == source.path.resolve():
        raise InputError(f"out is {out}, the bundle itself; expected another folder")
    folder = prepare_folder(Path(out))
    for role in ROLES:
        spec = source.file(role)
        for name in (spec.file, spec.data):
            if name is not None:
                shutil.copyfile(source.path / name, folder / name)
    manifest = replace(source.prompted, precisions=("fp32",), precision_files={})

    roles = manifest.graphs
    runtime = OnnxRuntimeBackend("fp32", None)
    networks = {role: runtime.open(source.onnx_path(role)) for role in roles}
    samples = sample_frames()
    expected, runs = record(source, runtime.name, networks, samples)
    variants = Variants(folder, runs, manifest.batch, Findings("its fp32 files", samples, expected))
    return variants.finish(manifest, {role: float_graph(source.onnx_path(role)) for role in roles}, others, say)


def float_graph(path: Path) -> onnx.ModelProto:
    """Read a graph; weights stored as float16 with a cast become float32 weights without one."""
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        half = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if half is None or half.data_type != TensorProto.FLOAT16:
            kept.append(node)
            continue
        values = numpy_helper.to_array(half).astype(np.float32)
        half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return onnx.shape_inference.infer_shapes(model)
