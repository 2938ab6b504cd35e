"""Writes a fitted network as a bundle, so that a reader sees the old one, the new one or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from samg_fast.bundle import FittedManifest, ImageSpec, sha256_of, write_manifest
from samg_fast.checks import Frame
from samg_fast.distill.optimise import MEAN, STD
from samg_fast.export.agreement import with_agreement
from samg_fast.export.compact import compare, fold, round_weights, write_compact
from samg_fast.export.graph import OPSET
from samg_fast.files import write_bytes

from .network import FittedNet

__all__ = ["publish", "write_bundle"]

_INPUTS, _OUTPUTS = ("image",), ("logits", "score")


def write_bundle(
    model: FittedNet, folder: Path, frames: Sequence[Frame], *, name: str, description: str, source: str,
    target: str | None,
) -> FittedManifest:  # fmt: skip
    """Write a bundle, and check its network against PyTorch.

    Parameters
    ----------
    model : FittedNet
        Changed in place: batch norms are folded, and weights rounded to half precision.
    folder : path
        It must exist, and hold no bundle.
    frames : sequence of (H, W, 3) uint8 arrays
        On which the precisions are compared.
    name, description, source, target
        For the manifest, which states neither accuracy nor `present` yet.

    Returns
    -------
    FittedManifest

    Raises
    ------
    BundleError
        The file does not agree with the model.
    """
    side, model = model.shape.side, model.eval()
    fold(model)
    round_weights(model)
    image = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    written = folder / "network.onnx"
    with torch.no_grad():
        write_compact(model, (image[:2],), _INPUTS, _OUTPUTS, written)
        expected = {output: value.numpy() for output, value in zip(_OUTPUTS, model(image), strict=True)}
    compare(written, {"image": image.numpy()}, expected)
    digest = sha256_of(written)
    file = written.rename(folder / f"network-{digest[:12]}.onnx")
    mean, std = ((v[0] / 255, v[1] / 255, v[2] / 255) for v in (MEAN, STD))
    manifest = FittedManifest(
        name=name, description=description, license="Apache-2.0", source=source, opset=OPSET, precisions=("fp32",),
        network=ImageSpec(file=file.name, sha256=digest, side=side, mean=mean, std=std, resize="uint8"),
        target=target,
    )  # fmt: skip
    compared: FittedManifest = with_agreement(folder, manifest, frames)
    write_manifest(folder, compared)
    return compared


def publish(trial: Path, manifest: FittedManifest, folder: Path) -> None:
    """Put a bundle's network and a manifest of it into a folder, in place of the bundle that may be there."""
    name = manifest.network.file
    # A name of its own: until the manifest names it, the one before stays whole
    write_bytes(folder / name, (trial / name).read_bytes())
    write_manifest(folder, manifest)
    for other in folder.glob("network-*.onnx"):
        if other.name != name:
            other.unlink()
