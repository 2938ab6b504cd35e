"""Measures how well a bundle's masks at each precision agree with those at fp32; ``precision="auto"`` relies on it.

Export and distillation write the figures into the manifest; ``python -m benchmarks.agreement`` measures any bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime

from samg_fast import ops
from samg_fast.backends import Network, first_fitting, open_networks, probe
from samg_fast.backends.onnxruntime.cpu import OnnxRuntimeNetwork
from samg_fast.bundle import Bundle, FittedManifest, PromptedManifest, Role
from samg_fast.checks import Frame, Mask
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


def measure_agreement(bundle: Bundle, frames: int | Sequence[Frame] = FRAMES) -> dict[str, float]:
    """Segment frames at every precision that can run here, and compare the masks with those at fp32.

    fp16 is emulated, because processors would compute it in float32. bf16 runs natively, from the fp32 files, on a
    processor that supports it; otherwise it is emulated if the bundle has bf16 files. int8 runs natively.

    Parameters
    ----------
    bundle : Bundle
    frames : int or sequence of (H, W, 3) uint8 arrays
        Number of shipped frames of each task, half of them with a moving background; or, of a fitted bundle, the frames
        themselves.

    Returns
    -------
    dict of str to float
        Precision -> mean IoU with fp32's masks, over all frames. Empty if no target reaches the encoder's grid.
    """
    has_bf16 = any(each.device == "cpu" and "bf16" in each.precisions for each in probe())
    precisions = sorted({*bundle.manifest.precisions, *["bf16"] * has_bf16} - {"fp32"})
    if not precisions:
        return {}
    samples = frames if isinstance(frames, Sequence) else _samples(bundle, frames)
    if not samples:
        return {}
    with _running(bundle, "fp32") as segmenter:
        expected = _masks(segmenter, samples)
    figures = {}
    for precision in precisions:
        native = precision == "int8" or (precision == "bf16" and has_bf16)
        with (_running if native else _emulating)(bundle, precision) as segmenter:
            found = _masks(segmenter, samples)
        figures[precision] = round(float(np.mean([iou(a, b) for a, b in zip(found, expected, strict=True)])), 4)
    return figures


_Kind = TypeVar("_Kind", PromptedManifest, FittedManifest)


def with_agreement(folder: Path, manifest: _Kind, frames: int | Sequence[Frame] = FRAMES) -> _Kind:
    """Return the manifest of the files in a folder with the results of `measure_agreement` in it."""
    return replace(manifest, agreement=measure_agreement(Bundle(folder, manifest), frames))


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


def _samples(bundle: Bundle, frames: int) -> list[Sample]:
    """Return shipped frames whose targets reach a cell of the encoder's grid, which a coarse one may miss."""
    spec = bundle.prompted.encoder
    found = sample_frames(tasks=8, per_setting=max(1, frames // 2))
    return [each for each in found if ops.mask_cells(each.mask, side=spec.side, grid=spec.grid).any()]


def _masks(segmenter: Segmenter, samples: Sequence[Sample] | Sequence[Frame]) -> list[Mask]:
    masks = []
    for sample in samples:
        if not isinstance(sample, Sample):
            masks.append(segmenter.segment(sample).mask)
            continue
        target = segmenter.identify(sample.reference, sample.mask)
        masks += [segmenter.segment(frame, target).mask for frame in sample.frames]
    return masks
