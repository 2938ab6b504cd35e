"""Turns a checkpoint into a bundle: two ONNX files and a manifest, with a check that they agree with PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from samg_fast.bundle import DecoderSpec, NetworkSpec, PromptedManifest, sha256_of, write_manifest
from samg_fast.export.agreement import with_agreement
from samg_fast.export.compact import Parity, compare, fold, round_weights, write_compact
from samg_fast.export.graph import OPSET

from .model import EMPTY_SLOT, Tiny
from .optimise import MEAN, STD

_ENCODER, _DECODER = "encoder.onnx", "decoder.onnx"
_PROMPTS = ("embedding", "point_coords", "point_labels", "mask_input", "has_mask_input", "target")


def examples(model: Tiny, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return random inputs of the encoder and of the decoder, with prompts of every kind."""
    shape = model.shape
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, shape.side, shape.side, generator=generator)
    labels = torch.randint(EMPTY_SLOT, 4, (batch, shape.slots), generator=generator).float()
    side, channels = 4 * shape.grid, shape.channels + shape.detail
    return image, (
        torch.randn(batch, channels, shape.grid, shape.grid, generator=generator) * channels**-0.5,
        torch.rand(batch, shape.slots, 2, generator=generator) * shape.side,
        labels,
        4 * torch.randn(batch, 1, side, side, generator=generator),
        (torch.arange(batch) % 2).float(),
        torch.randn(batch, channels, generator=generator) * channels**-0.5,
    )


def check_parity(model: Tiny, folder: Path) -> list[Parity]:
    """Compare the ONNX files with PyTorch on a batch of three, run by ONNX Runtime.

    Raises
    ------
    BundleError
        An output differs by more than `samg_fast.export.compact.TOLERANCE` of its range.
    """
    image, prompts = examples(model, 3)
    with torch.no_grad():
        expected = dict(zip(("embedding", "features"), model.encoder(image), strict=True))
        expected |= dict(zip(("low_res_masks", "iou"), model.decoder(*prompts), strict=True))
    feeds = {
        _ENCODER: {"image": image.numpy()},
        _DECODER: {n: p.numpy() for n, p in zip(_PROMPTS, prompts, strict=True)},
    }
    wanted = {name: output.numpy() for name, output in expected.items()}
    return [each for file, inputs in feeds.items() for each in compare(folder / file, inputs, wanted)]


def write_bundle(
    model: Tiny, folder: Path, *, name: str, description: str, source: str, present: float | None = None
) -> list[Parity]:
    """Write a bundle folder, and check it against PyTorch.

    Parameters
    ----------
    model : Tiny
        Changed in place: batch norms are folded, and weights rounded to half precision.
    folder : path
        Created if it does not exist; its files are replaced.
    name, description, source : str
        For the manifest.
    present : float, optional
        Likewise: the score from which a target counts as present.

    Returns
    -------
    list of Parity
        One for each output.

    Raises
    ------
    BundleError
        The ONNX files do not agree with the model. No manifest is written then, so the bundle cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    shape = model.shape
    image, prompts = examples(model, 2)
    with torch.no_grad():
        fold(model.encoder)
        round_weights(model)
        write_compact(model.encoder, (image,), ("image",), ("embedding", "features"), folder / _ENCODER)
        write_compact(model.decoder, prompts, _PROMPTS, ("low_res_masks", "iou"), folder / _DECODER)
    report = check_parity(model, folder)
    digest = sha256_of(folder / _ENCODER)

    mean, std = ((round(v[0] / 255, 6), round(v[1] / 255, 6), round(v[2] / 255, 6)) for v in (MEAN, STD))

    def head(output: str, channels: int) -> NetworkSpec:
        return NetworkSpec(
            file=_ENCODER, sha256=digest, output=output, side=shape.side, grid=shape.grid, channels=channels,
            mean=mean, std=std, resize="uint8",
        )  # fmt: skip

    manifest = PromptedManifest(
        name=name, description=description, license="Apache-2.0", source=source, opset=OPSET, precisions=("fp32",),
        prompt_side=shape.side, slots=shape.slots, encoder=head("embedding", shape.channels + shape.detail),
        features=head("features", shape.channels),
        decoder=DecoderSpec(file=_DECODER, sha256=sha256_of(folder / _DECODER), target=True),
        present=present,
    )  # fmt: skip
    write_manifest(folder, with_agreement(folder, manifest, 32))
    return report
