"""Writes a fitted network as a bundle, so that a reader sees the old one, the new one or none."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from samg_fast.bundle import FittedManifest, ImageSpec, sha256_of, write_manifest
from samg_fast.checks import Frame
from samg_fast.export.agreement import with_agreement
from samg_fast.export.compact import Parity, compare, fold, round_weights, write_compact
from samg_fast.export.graph import OPSET
from samg_fast.files import write_bytes

from .network import FittedNet
from .train import MEAN, STD

__all__ = ["write_bundle"]

_INPUTS, _OUTPUTS = ("image",), ("logits", "score")


def write_bundle(
    model: FittedNet,
    folder: Path,
    frames: Sequence[Frame],
    *,
    name: str,
    description: str,
    source: str,
    target: str | None,
    accuracy: Mapping[str, float],
    present: float | None,
) -> list[Parity]:
    """Write a bundle, and check its network against PyTorch.

    Parameters
    ----------
    model : FittedNet
        Changed in place: batch norms are folded, and weights rounded to half precision.
    folder : path
        It must exist.
    frames : sequence of (H, W, 3) uint8 arrays
        On which the precisions are compared.
    name, description, source, target, accuracy, present
        For the manifest.

    Returns
    -------
    list of Parity
        One for each output.

    Raises
    ------
    BundleError
        The file does not agree with the model. The bundle that was there, if any, stays.
    """
    side, model = model.shape.side, model.eval()
    fold(model)
    round_weights(model)
    image = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="samg-fast-") as trial, torch.no_grad():
        written = Path(trial) / "network.onnx"
        write_compact(model, (image[:2],), _INPUTS, _OUTPUTS, written)
        expected = {output: value.numpy() for output, value in zip(_OUTPUTS, model(image), strict=True)}
        parity: list[Parity] = compare(written, {"image": image.numpy()}, expected)
        digest = sha256_of(written)
        # A name of its own: until the manifest names it, the one before stays whole
        file = folder / f"network-{digest[:12]}.onnx"
        write_bytes(file, written.read_bytes())
    mean, std = ((v[0] / 255, v[1] / 255, v[2] / 255) for v in (MEAN, STD))
    manifest = FittedManifest(
        name=name, description=description, license="Apache-2.0", source=source, opset=OPSET, precisions=("fp32",),
        network=ImageSpec(file=file.name, sha256=digest, side=side, mean=mean, std=std, resize="uint8"),
        target=target, accuracy=accuracy, present=present,
    )  # fmt: skip
    write_manifest(folder, with_agreement(folder, manifest, frames))
    for other in folder.glob("network-*.onnx"):
        if other != file:
            other.unlink()
    return parity
