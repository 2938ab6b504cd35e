"""More precisions for a bundle that is there already, ``tiny`` among them."""

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
from .variants import ExportReport, Findings, Say, Variants, precisions

__all__ = ["add_precisions"]


def add_precisions(
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str | Sequence[str],
    say: Say = lambda _: None,
) -> ExportReport:
    """Write a bundle again, with files for more precisions.

    Parameters
    ----------
    bundle : str or os.PathLike
        Name or folder of a bundle.
    out : str or os.PathLike
        The folder to write; another one.
    precision : str or sequence of str
        Of ``"fp16"``, ``"bf16"``, ``"int8"``.
    say : callable
        Told what is being done.

    Returns
    -------
    ExportReport
        Compared with the bundle's own fp32 files on ONNX Runtime.

    Raises
    ------
    InputError, InputTypeError
        An argument is none of the above.
    BundleError
        The bundle cannot be read, or an image network does not hold `samg_fast.parity.THRESHOLDS`; no manifest
        is written then.
    """
    kinds = precisions(precision)
    source = Bundle.open(resolve(bundle))
    if Path(out).resolve() == source.path.resolve():
        raise InputError(f"out is {out}, the bundle itself; expected another folder")
    folder = prepare_folder(Path(out))
    for role in ROLES:
        spec = source.file(role)
        for name in (spec.file, spec.data):
            if name is not None:
                shutil.copyfile(source.path / name, folder / name)
    manifest = replace(source.manifest, precisions=("fp32",), precision_files={})

    roles = manifest.graphs
    runtime = OnnxRuntimeBackend("fp32", None)
    networks = {role: runtime.open(source.onnx_path(role)) for role in roles}
    samples = sample_frames()
    wanted, runs = record(source, runtime.name, networks, samples)
    variants = Variants(folder, runs, manifest.batch, Findings("its fp32 files", samples, wanted))
    return variants.finish(manifest, {role: float_graph(source.onnx_path(role)) for role in roles}, kinds, say)


def float_graph(path: Path) -> onnx.ModelProto:
    """Read a graph, with weights that are kept as float16 and cast at load turned into the float32 they stand for."""
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
