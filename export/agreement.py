"""Measures how well a bundle's masks at each precision agree with those at fp32; ``precision="auto"`` relies on it.

Export and distillation write the figures into the manifest; ``python -m benchmarks.agreement`` measures any bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime

from samg_fast import ops
from samg_fast.backends import Network, first_fitting, open_networks, probe
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeNetwork
from samg_fast.bundle import Bundle, Manifest, Role
from samg_fast.checks import Mask
from samg_fast.metrics import iou
from samg_fast.parity import Sample, sample_frames
from samg_fast.segmenter import Segmenter

from .emulate import emulated

__all__ = ["emulated_network", "measure_agreement", "with_agreement"]

FRAMES = 2
"""Frames of each of the eight tasks, half of them clean and half with a moving background."""


@dataclass
class _Emulator:
    """Stands for a backend: half precision computed as hardware that supports it would."""

    precision: str
    name: str = "emulated"
    version: str = ""
    threads: int | None = None


def measure_agreement(bundle: Bundle, *, frames: int = FRAMES) -> dict[str, float]:
    """Segment the shipped frames at every precision that can run here, and compare the masks with those at fp32.

    fp16 is emulated, because processors would compute it in float32. bf16 runs natively, from the fp32 files, on a
    processor that supports it; otherwise it is emulated if the bundle has bf16 files. int8 runs natively.

    Parameters
    ----------
    bundle : Bundle
    frames : int
        Number of frames of each task, half of them with a moving background.

    Returns
    -------
    dict of str to float
        Precision -> mean IoU with fp32's masks, over all frames. Empty if no target reaches the encoder's grid.
    """
    has_bf16 = any(each.device == "cpu" and "bf16" in each.precisions for each in probe())
    precisions = sorted({*bundle.manifest.precisions, *["bf16"] * has_bf16} - {"fp32"})
    if not precisions:
        return {}
    with _running(bundle, "fp32") as segmenter:
        samples = [
            each for each in sample_frames(tasks=8, per_setting=max(1, frames // 2)) if _reaches(segmenter, each)
        ]
        expected = _masks(segmenter, samples)
    if not samples:
        return {}
    figures = {}
    for precision in precisions:
        native = precision == "int8" or (precision == "bf16" and has_bf16)
        with (_running if native else _emulating)(bundle, precision) as segmenter:
            found = _masks(segmenter, samples)
        figures[precision] = round(float(np.mean([iou(a, b) for a, b in zip(found, expected, strict=True)])), 4)
    return figures


def with_agreement(bundle: Bundle, *, frames: int = FRAMES) -> Manifest:
    """Return a bundle's manifest with the results of `measure_agreement` in it."""
    return replace(bundle.manifest, agreement=measure_agreement(bundle, frames=frames))


def emulated_network(model: onnx.ModelProto, name: str) -> OnnxRuntimeNetwork:
    """Open a half-precision graph that gives the results of hardware with that precision."""
    content = emulated(model).SerializeToString()
    return OnnxRuntimeNetwork(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), name)


def _running(bundle: Bundle, precision: str) -> Segmenter:
    backend = first_fitting(precision)
    return Segmenter(bundle, backend, open_networks(bundle, backend))


def _emulating(bundle: Bundle, precision: str) -> Segmenter:
    networks: dict[Role, Network] = {}
    for role in bundle.manifest.graphs:
        path = bundle.onnx_path(role, precision)
        if bundle.manifest.role_precision(role, precision) == precision:
            networks[role] = emulated_network(onnx.load(path), path.name)
        else:
            networks[role] = first_fitting("fp32").open(path)
    return Segmenter(bundle, _Emulator(precision), networks)


def _reaches(segmenter: Segmenter, sample: Sample) -> bool:
    """Say whether a sample's target reaches a cell of the encoder's grid, which a coarse one may miss."""
    spec = segmenter.bundle.manifest.encoder
    return bool(ops.mask_cells(sample.mask, side=spec.side, grid=spec.grid).any())


def _masks(segmenter: Segmenter, samples: Sequence[Sample]) -> list[Mask]:
    masks = []
    for sample in samples:
        target = segmenter.identify(sample.reference, sample.mask)
        masks += [segmenter.segment(frame, target).mask for frame in sample.frames]
    return masks
