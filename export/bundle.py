"""Official checkpoints -> a bundle folder, checked against PyTorch before its manifest is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from samg_fast.bundle import ROLES, Bundle, DecoderSpec, NetworkSpec, PromptedManifest, Role, sha256_of
from samg_fast.checks import is_whole
from samg_fast.errors import InputError, InputTypeError
from samg_fast.parity import record, sample_frames

from .dinov2 import PATCH, DinoV2, PatchFeatures
from .fuse import fuse
from .graph import OPSET, prepare_folder, trace
from .models import dino_variant, load_dino, load_sam, sam_variant
from .sam import CHANNELS, GRID, PROMPT_SIDE, EfficientViTSam, PromptDecoder
from .tokens import TokenDecoder
from .torch_network import TorchNetwork
from .variants import ExportReport, Findings, Say, Variants, file_name, parse_precisions

__all__ = ["DINO_SIDE", "SLOTS", "dino_spec", "export_bundle", "sam_spec"]

DINO_SIDE = 448
"""Default input side of the features network in pixels, as in SAM-G."""

SLOTS = 16
"""Default number of points and box corners that the decoder takes: enough for a target with ten parts."""

_STRIDE = 32
_OUTPUTS: dict[Role, tuple[str, ...]] = {
    "encoder": ("embedding",),
    "features": ("features",),
    "decoder": ("low_res_masks", "iou"),
}

_NO_HASH = "0" * 64  # placeholder in a manifest whose files are not written yet


def export_bundle(
    sam: str,
    sam_checkpoint: str | os.PathLike[str],
    dino: str,
    dino_checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: str | Sequence[str] = "fp32",
    batch: int | None = 1,
    sam_side: int | None = None,
    dino_side: int = DINO_SIDE,
    slots: int = SLOTS,
    name: str | None = None,
    say: Say = lambda _: None,
) -> ExportReport:
    """Build a bundle from official checkpoints.

    Parameters
    ----------
    sam : str
        ``"efficientvit-sam-l0"`` to ``"efficientvit-sam-xl1"``, or ``"l0"`` to ``"xl1"``.
    sam_checkpoint : str or os.PathLike
        Its official checkpoint.
    dino : str
        ``"dinov2-vits14"``, ``"dinov2-vits14-reg"`` and so on, with or without ``"dinov2-"``.
    dino_checkpoint : str or os.PathLike
        Its official checkpoint.
    out : str or os.PathLike
        The folder to write; created if it does not exist. A bundle's files in it are replaced.
    precision : str or sequence of str
        Any of ``"fp32"``, ``"fp16"``, ``"bf16"``, ``"int8"``, also as ``"fp16,int8"``. The fp32 files are always
        written, because the others are compared with them.
    batch : int or None
        Fixed batch size of every graph; None leaves it dynamic.
    sam_side : int, optional
        Input side of the encoder in pixels, a multiple of 32; by default the one it was trained at. A smaller side is
        faster; its effect on accuracy is not measured.
    dino_side : int
        Input side of the features network in pixels, a multiple of 14.
    slots : int
        Number of points and box corners that the decoder takes; a target with K parts needs K + 6.
    name : str, optional
        The bundle's name; by default ``"l0-vits14"`` and the like.
    say : callable
        Called with a line about each stage.

    Returns
    -------
    ExportReport

    Raises
    ------
    InputError, InputTypeError
        An argument is invalid.
    CheckpointError
        A checkpoint does not belong to its model.
    BundleError
        A network does not agree with PyTorch within `samg_fast.parity.THRESHOLDS`. No manifest is written then, so
        nothing can be loaded from `out`.
    FileError
        The folder cannot be written.

    Notes
    -----
    At fp16 and bf16 the decoder stays in float32 if it misses its threshold in half precision: its attention logits can
    be so large that any rounding changes the mask. At int8 it always does. The report says so.
    """
    others = parse_precisions(precision)
    _check_numbers(batch, sam_side, dino_side, slots)
    models = _Models(load_sam(sam, sam_checkpoint), load_dino(dino, dino_checkpoint), sam_side, dino_side)
    folder = prepare_folder(Path(out))
    manifest = PromptedManifest(
        name=name or f"{sam_variant(sam)}-{dino_variant(dino)}",
        description=f"EfficientViT-SAM-{sam_variant(sam).upper()} and DINOv2 {dino_variant(dino)}",
        license="Apache-2.0",
        source=f"{Path(sam_checkpoint).name} (SHA-256 {sha256_of(sam_checkpoint)}), "
        f"{Path(dino_checkpoint).name} (SHA-256 {sha256_of(dino_checkpoint)})",
        opset=OPSET,
        precisions=("fp32",),
        prompt_side=PROMPT_SIDE,
        slots=slots,
        encoder=sam_spec(models.sam_side),
        features=dino_spec(dino_side, models.dino.shape.width),
        decoder=DecoderSpec(file=file_name("decoder"), sha256=_NO_HASH),
        batch=batch,
    )
    say("PyTorch: running the official networks on sample frames")
    samples = sample_frames()
    networks = {role: TorchNetwork(module, _OUTPUTS[role]) for role, module in models.networks.items()}
    expected, runs = record(Bundle(folder, manifest), "pytorch", networks, samples)
    findings = Findings("PyTorch", samples, expected)
    variants = Variants(folder, runs, batch, findings)
    say("fp32: tracing the networks")
    graphs = models.trace(batch, slots)
    files = {role: variants.save_float(graph, role) for role, graph in graphs.items()}
    manifest = replace(
        manifest,
        encoder=replace(manifest.encoder, **files["encoder"].to_dict()),
        features=replace(manifest.features, **files["features"].to_dict()),
        decoder=replace(manifest.decoder, **files["decoder"].to_dict()),
    )
    findings.check_frames(folder, manifest, "fp32")
    return variants.finish(manifest, graphs, others, say)


def sam_spec(side: int) -> NetworkSpec:
    """Describe the encoder of an official model; its file's SHA-256 is not known yet."""
    return NetworkSpec(
        file=file_name("encoder"),
        sha256=_NO_HASH,
        output="embedding",
        side=side,
        grid=GRID,
        channels=CHANNELS,
        mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
        std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
        resize="uint8",
    )


def dino_spec(side: int, width: int) -> NetworkSpec:
    """Describe the features network of an official model; its file's SHA-256 is not known yet."""
    return NetworkSpec(
        file=file_name("features"),
        sha256=_NO_HASH,
        output="features",
        side=side,
        grid=side // PATCH,
        channels=width,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize="float",
    )


class _Models:
    """Both official models with their weights, as the three networks of a bundle."""

    def __init__(self, sam: EfficientViTSam, dino: DinoV2, sam_side: int | None, dino_side: int) -> None:
        self.sam, self.dino, self.dino_side = sam, dino, dino_side
        self.sam_side = sam_side or sam.shape.side
        self.networks: dict[Role, nn.Module] = {
            "encoder": sam.image_encoder,
            "features": PatchFeatures(dino, dino_side).eval(),
            "decoder": PromptDecoder(sam).eval(),
        }

    def trace(self, batch: int | None, slots: int) -> dict[Role, onnx.ModelProto]:
        """Fold constants into the models, in place, and export the networks."""
        fuse(self.sam)
        fuse(self.dino)
        networks = {**self.networks, "decoder": TokenDecoder(PromptDecoder(self.sam)).eval()}
        return {
            role: trace(
                networks[role], self.examples(role, batch or 2, slots), _OUTPUTS[role], dynamic_batch=batch is None
            )
            for role in ROLES
        }

    def examples(self, role: Role, batch: int, slots: int) -> dict[str, Tensor]:
        """Return example inputs of the right shapes."""
        if role != "decoder":
            side = self.sam_side if role == "encoder" else self.dino_side
            return {"image": torch.zeros(batch, 3, side, side)}
        return {
            "embedding": torch.zeros(batch, CHANNELS, GRID, GRID),
            "point_coords": torch.zeros(batch, slots, 2),
            "point_labels": torch.zeros(batch, slots),
            "mask_input": torch.zeros(batch, 1, 4 * GRID, 4 * GRID),
            "has_mask_input": torch.ones(batch),
        }


def _check_numbers(batch: int | None, sam_side: int | None, dino_side: int, slots: int) -> None:
    optional = {"batch": batch, "sam_side": sam_side}
    given = {name: value for name, value in optional.items() if value is not None}
    for name, value in {**given, "dino_side": dino_side, "slots": slots}.items():
        if not is_whole(value):
            raise InputTypeError(f"{name} must be a whole number, not {value!r}")
    if batch is not None and batch < 1:
        raise InputError(f"batch is {batch}, expected 1 or more, or None to leave it open")
    if sam_side is not None and (sam_side < _STRIDE or sam_side % _STRIDE):
        raise InputError(f"sam_side is {sam_side}, expected a multiple of {_STRIDE}, by which the encoder shrinks it")
    if dino_side < PATCH or dino_side % PATCH:
        raise InputError(f"dino_side is {dino_side}, expected a multiple of {PATCH}, the side of DINOv2's patches")
    if slots < 6:
        raise InputError(f"slots is {slots}, expected 6 or more: a target without parts needs so many")
