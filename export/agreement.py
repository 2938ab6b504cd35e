"""How well a bundle's masks at each precision agree with those at fp32: what ``precision="auto"`` goes by.

Exports and distillation state it in the manifest; ``python -m benchmarks.agreement`` measures a bundle that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime

from samg_fast.backends import Network, first_fitting, open_networks, probe
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeNetwork
from samg_fast.bundle import Bundle, Manifest, Role
from samg_fast.checks import Mask
from samg_fast.parity import Sample, iou, sample_frames
from samg_fast.segmenter import Segmenter

from .emulate import emulated

__all__ = ["emulated_network", "measure_agreement", "with_agreement"]

FRAMES = 2
"""Frames of each of the eight tasks, one of them clean and one in a moving background."""


@dataclass
class _Emulator:
    """A runtime that computes half precision as hardware with it would."""

    precision: str
    name: str = "emulated"
    version: str = ""
    threads: int | None = None


def measure_agreement(bundle: Bundle, *, frames: int = FRAMES) -> dict[str, float]:
    """Segment the frames that ship at every precision that can run here.

    fp16 is emulated, as a processor would compute it in float32. bf16 runs on a processor that has it, from the fp32
    files; without one it is emulated if the bundle has such files. int8 runs as it is.

    Parameters
    ----------
    bundle : Bundle
    frames : int
        How many of each task, half of them in a moving background.

    Returns
    -------
    dict of str to float
        Precision -> mean IoU with fp32's masks, over all frames.
    """
    samples = sample_frames(tasks=8, per_setting=max(1, frames // 2))
    with _running(bundle, "fp32") as segmenter:
        wanted = _masks(segmenter, samples)
    figures = {}
    has_bf16 = any(each.device == "cpu" and "bf16" in each.precisions for each in probe())
    for kind in sorted({*bundle.manifest.precisions, *["bf16"] * has_bf16} - {"fp32"}):
        native = kind == "int8" or (kind == "bf16" and has_bf16)
        with (_running if native else _emulating)(bundle, kind) as segmenter:
            found = _masks(segmenter, samples)
        figures[kind] = round(float(np.mean([iou(a, b) for a, b in zip(found, wanted, strict=True)])), 4)
    return figures


def with_agreement(bundle: Bundle, *, frames: int = FRAMES) -> Manifest:
    """Return a bundle's manifest that states what `measure_agreement` finds."""
    return replace(bundle.manifest, agreement=measure_agreement(bundle, frames=frames))


def emulated_network(model: onnx.ModelProto, name: str) -> OnnxRuntimeNetwork:
    """Open a half-precision graph so that it runs as hardware with that precision would."""
    content = emulated(model).SerializeToString()
    return OnnxRuntimeNetwork(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), name)


def _running(bundle: Bundle, kind: str) -> Segmenter:
    backend = first_fitting(kind)
    return Segmenter(bundle, backend, open_networks(bundle, backend))


def _emulating(bundle: Bundle, kind: str) -> Segmenter:
    networks: dict[Role, Network] = {}
    for role in bundle.manifest.graphs:
        path = bundle.onnx_path(role, kind)
        if bundle.manifest.role_precision(role, kind) == kind:
            networks[role] = emulated_network(onnx.load(path), path.name)
        else:
            networks[role] = first_fitting("fp32").open(path)
    return Segmenter(bundle, _Emulator(kind), networks)


def _masks(segmenter: Segmenter, samples: Sequence[Sample]) -> list[Mask]:
    masks = []
    for sample in samples:
        target = segmenter.identify(sample.reference, sample.mask)
        masks += [segmenter.segment(frame, target).mask for frame in sample.frames]
    return masks
