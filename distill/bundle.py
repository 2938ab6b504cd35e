"""Turns a checkpoint into a bundle: two ONNX files and a manifest, with a check that they agree with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from samg_fast.bundle import Bundle, DecoderSpec, Manifest, NetworkSpec, sha256_of, write_manifest
from samg_fast.errors import BundleError
from samg_fast.export.agreement import with_agreement
from samg_fast.export.graph import OPSET, save_graph, trace

from .model import EMPTY_SLOT, Tiny
from .train import MEAN, STD

TOLERANCE = 1e-3
"""Maximum difference from PyTorch, relative to an output's range: float32 sums in another order."""

_ENCODER, _DECODER = "encoder.onnx", "decoder.onnx"
_PROMPTS = ("embedding", "point_coords", "point_labels", "mask_input", "has_mask_input", "target")


@dataclass(frozen=True)
class Parity:
    """Largest and mean difference of one output, relative to its range."""

    output: str
    largest: float
    mean: float


def _write(
    network: nn.Module, arguments: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    model = trace(network, dict(zip(inputs, arguments, strict=True)), outputs, dynamic_batch=True)
    _halve_weights(model.graph)
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


def _round_weights(network: nn.Module) -> None:
    """Round every weight matrix to float16 values, in place, so that `_halve_weights` loses nothing."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half().float())


def _fold(network: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, in place."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential) and len(child) >= 2 and isinstance(child[1], nn.BatchNorm2d):
                convolution, norm = child[0], child[1]
                if isinstance(convolution, nn.Conv2d):
                    setattr(module, name, nn.Sequential(fuse_conv_bn_eval(convolution, norm), *list(child)[2:]))


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
        An output differs by more than `TOLERANCE` of its range.
    """
    import onnxruntime

    image, prompts = examples(model, 3)
    with torch.no_grad():
        expected = dict(zip(("embedding", "features"), model.encoder(image), strict=True))
        expected |= dict(zip(("low_res_masks", "iou"), model.decoder(*prompts), strict=True))
    feeds = {
        _ENCODER: {"image": image.numpy()},
        _DECODER: {n: p.numpy() for n, p in zip(_PROMPTS, prompts, strict=True)},
    }
    report = []
    for file, inputs in feeds.items():
        session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for name, found in zip(names, session.run(names, inputs), strict=True):
            output = expected[name].numpy()
            difference = np.abs(found - output) / np.ptp(output)
            report.append(Parity(name, float(difference.max()), float(difference.mean())))
    worst = max(report, key=lambda parity: parity.largest)
    if not worst.largest <= TOLERANCE:
        raise BundleError(
            f"{worst.output}: ONNX differs from PyTorch by {worst.largest:.2g} of its range, over {TOLERANCE}"
        )
    return report


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
        _fold(model.encoder)
        _round_weights(model)
        _write(model.encoder, (image,), ("image",), ("embedding", "features"), folder / _ENCODER)
        _write(model.decoder, prompts, _PROMPTS, ("low_res_masks", "iou"), folder / _DECODER)
    report = check_parity(model, folder)
    digest = sha256_of(folder / _ENCODER)

    mean, std = ((round(v[0] / 255, 6), round(v[1] / 255, 6), round(v[2] / 255, 6)) for v in (MEAN, STD))

    def head(output: str, channels: int) -> NetworkSpec:
        return NetworkSpec(
            file=_ENCODER, sha256=digest, output=output, side=shape.side, grid=shape.grid, channels=channels,
            mean=mean, std=std, resize="uint8",
        )  # fmt: skip

    manifest = Manifest(
        name=name, description=description, license="Apache-2.0", source=source, opset=OPSET, precisions=("fp32",),
        prompt_side=shape.side, slots=shape.slots, encoder=head("embedding", shape.channels + shape.detail),
        features=head("features", shape.channels),
        decoder=DecoderSpec(file=_DECODER, sha256=sha256_of(folder / _DECODER), target=True),
        present=present,
    )  # fmt: skip
    write_manifest(folder, with_agreement(Bundle(folder, manifest), frames=32))
    return report
