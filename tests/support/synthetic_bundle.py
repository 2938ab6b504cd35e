"""Small bundles that keep the contract of docs/bundle.md, made with onnx.helper in less than a second.

Their masks mean nothing, but every output depends on every input, so that wiring the frame wrongly changes the result.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from samg_fast.bundle import (
    DecoderSpec,
    FittedManifest,
    ImageSpec,
    NetworkSpec,
    PromptedManifest,
    sha256_of,
    write_manifest,
)

SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
DINO_MEAN = (0.485, 0.456, 0.406)
DINO_STD = (0.229, 0.224, 0.225)

SAM_SPEC = NetworkSpec(
    file="e.onnx",
    sha256="0" * 64,
    output="embedding",
    side=512,
    grid=64,
    channels=256,
    mean=SAM_MEAN,
    std=SAM_STD,
    resize="uint8",
)
"""The official encoder's, at side 512."""

DINO_SPEC = replace(
    SAM_SPEC, output="features", side=448, grid=32, channels=384, mean=DINO_MEAN, std=DINO_STD, resize="float"
)
"""Those of DINOv2's small model."""


class _Graph:
    """Collects nodes and weights under fresh names."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def noise(self, *shape: int, scale: float) -> str:
        return self.constant(self.random.standard_normal(shape) * scale)

    def save(self, path: Path, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> None:
        def ports(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

        graph = helper.make_graph(self.nodes, path.stem, ports(inputs), ports(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def write_image_network(path: Path, side: int, outputs: dict[str, tuple[int, int]], seed: int) -> None:
    """Write a network of one strided convolution per output: name -> (channels, grid), grid a divisor of side."""
    graph = _Graph(seed)
    for name, (channels, grid) in outputs.items():
        stride = side // grid
        kernel = graph.noise(channels, 3, stride, stride, scale=1 / stride)
        bias = graph.noise(channels, scale=0.2)
        size: dict[str, Any] = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        graph.node("Tanh", graph.node("Conv", "image", kernel, bias, **size), output=name)
    shapes = {name: ["B", channels, grid, grid] for name, (channels, grid) in outputs.items()}
    graph.save(path, {"image": ["B", 3, side, side]}, shapes)


def write_decoder(
    path: Path, channels: int, grid: int, prompt_side: int, slots: int, seed: int, *, target: bool = False
) -> None:
    """Write a decoder whose logits add a picture of the embedding, a bump per prompt slot and the mask input.

    With `target`, the target's feature weighs the embedding's channels first.
    """
    graph, side = _Graph(seed), 4 * grid
    size: dict[str, Any] = {"kernel_shape": [4, 4], "strides": [4, 4]}
    seen = "embedding"
    if target:
        weights = graph.node("Unsqueeze", "target", graph.constant([2, 3], np.int64))
        seen = graph.node("Mul", seen, graph.node("Add", weights, graph.constant(1.0)))
    picture = graph.node("ConvTranspose", seen, graph.noise(channels, 4, 4, 4, scale=0.5), **size)

    # The weight of a slot by its label; labels are compared with a margin, as they are floats.
    amounts = {1: 3.0, 0: -2.0, 2: 0.7, 3: 1.1, -1: 0.4}  # -2 stays 0: an empty slot has no say
    labels = graph.node("Unsqueeze", "point_labels", graph.constant([2], np.int64))
    distance = graph.node("Abs", graph.node("Sub", labels, graph.constant([[list(amounts)]])))
    match = graph.node("Cast", graph.node("Less", distance, graph.constant(0.5)), to=TensorProto.FLOAT)
    weight = graph.node("MatMul", match, graph.constant(list(amounts.values())))  # (B, N)

    def axis(index: int) -> str:
        """Bumps of every slot along x or y, (B, N, side)."""
        at = graph.node("Gather", "point_coords", graph.constant([index], np.int64), axis=2)
        at = graph.node("Div", graph.node("Add", at, graph.constant(0.5)), graph.constant(prompt_side / side))
        offset = graph.node("Sub", at, graph.constant([[np.arange(side) + 0.5]]))
        square = graph.node("Mul", offset, offset)
        return graph.node("Exp", graph.node("Div", square, graph.constant(-2 * (side / 8) ** 2)))

    rows = graph.node("Mul", axis(1), graph.node("Unsqueeze", weight, graph.constant([2], np.int64)))
    bumps = graph.node("MatMul", graph.node("Transpose", rows, perm=[0, 2, 1]), axis(0))  # (B, side, side)
    bumps = graph.node("Unsqueeze", bumps, graph.constant([1], np.int64))
    has = graph.node("Reshape", "has_mask_input", graph.constant([-1, 1, 1, 1], np.int64))
    before = graph.node("Mul", "mask_input", has)
    first = graph.node("Mul", bumps, graph.constant(np.reshape([1.0, 1.4, 0.8, 1.1], (4, 1, 1))))
    second = graph.node("Mul", before, graph.constant(np.reshape([0.3, 0.2, 0.5, 0.4], (4, 1, 1))))
    prompted = graph.node("Add", first, second)
    low_res = graph.node("Add", graph.node("Add", picture, prompted), graph.constant(-0.3), output="low_res_masks")
    flat = graph.node("Reshape", low_res, graph.constant([0, 4, side * side], np.int64))
    pattern = graph.noise(4, side * side, scale=4 / side)
    likeness = graph.node("ReduceMean", graph.node("Mul", flat, pattern), axes=[2], keepdims=0)
    graph.node("Sigmoid", graph.node("Mul", likeness, graph.constant(3.0)), output="iou")
    inputs: dict[str, list[Any]] = {
        "embedding": ["B", channels, grid, grid],
        "point_coords": ["B", slots, 2],
        "point_labels": ["B", slots],
        "mask_input": ["B", 1, side, side],
        "has_mask_input": ["B"],
    }
    if target:
        inputs["target"] = ["B", channels]
    graph.save(path, inputs, {"low_res_masks": ["B", 4, side, side], "iou": ["B", 4]})


def write_bundle(
    folder: Path,
    *,
    shared: bool,
    side: int = 64,
    grid: int = 16,
    channels: int = 8,
    prompt_side: int = 96,
    slots: int = 12,
    seed: int = 0,
) -> Path:
    """Write a whole bundle and return its folder.

    With `shared`, encoder and features are one graph, and the decoder takes the target's feature. Without, the
    features have a network, side, grid and way of resizing of their own, as DINOv2 beside SAM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sam = NetworkSpec(
        file="encoder.onnx",
        sha256="0" * 64,
        output="embedding",
        side=side,
        grid=grid,
        channels=channels,
        mean=SAM_MEAN,
        std=SAM_STD,
        resize="uint8",
    )
    if shared:
        dino = replace(sam, output="features", channels=channels + 3)
        maps = {"embedding": (channels, grid), "features": (dino.channels, grid)}
        write_image_network(folder / sam.file, side, maps, seed)
    else:
        own = {"file": "features.onnx", "side": 56, "grid": 4, "mean": DINO_MEAN, "std": DINO_STD, "resize": "float"}
        dino = replace(sam, output="features", channels=channels + 3, **own)  # type: ignore[arg-type]
        write_image_network(folder / sam.file, side, {"embedding": (channels, grid)}, seed)
        write_image_network(folder / dino.file, dino.side, {"features": (dino.channels, dino.grid)}, seed + 1)
    write_decoder(folder / "decoder.onnx", channels, grid, prompt_side, slots, seed + 2, target=shared)
    manifest = PromptedManifest(
        name="synthetic-shared" if shared else "synthetic",
        description="made for tests",
        license="Apache-2.0",
        source="tests/support/synthetic_bundle.py",
        opset=17,
        precisions=("fp32",),
        prompt_side=prompt_side,
        slots=slots,
        encoder=replace(sam, sha256=sha256_of(folder / sam.file)),
        features=replace(dino, sha256=sha256_of(folder / dino.file)),
        decoder=DecoderSpec(file="decoder.onnx", sha256=sha256_of(folder / "decoder.onnx"), target=shared),
    )
    write_manifest(folder, manifest)
    return folder


def write_fitted_bundle(folder: Path, *, side: int = 48, target: str | None = None, batch: int | None = None) -> Path:
    """Write a bundle whose one network finds what is bright, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    graph, first = _Graph(0), batch or "B"
    smooth = graph.constant(np.ones((1, 3, 3, 3)) / 27)
    bright = graph.node("Conv", "image", smooth, graph.constant([-0.3]), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    logits = graph.node("Mul", bright, graph.constant(4.0), output="logits")
    most = graph.node("ReduceMax", logits, axes=[2, 3], keepdims=0)
    graph.node("Sigmoid", most, output="score")
    shapes = {"logits": [first, 1, side, side], "score": [first, 1]}
    graph.save(folder / "network.onnx", {"image": [first, 3, side, side]}, shapes)
    manifest = FittedManifest(
        name="fitted",
        description="made for tests",
        license="Apache-2.0",
        source="tests/support/synthetic_bundle.py",
        opset=17,
        precisions=("fp32",),
        network=ImageSpec(
            file="network.onnx",
            sha256=sha256_of(folder / "network.onnx"),
            side=side,
            mean=SAM_MEAN,
            std=SAM_STD,
            resize="uint8",
        ),
        target=target,
        accuracy={"network": 0.9},
        present=0.6,
        batch=batch,
    )
    write_manifest(folder, manifest)
    return folder


def picture(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a bright, speckled ellipse on a coarse, darker ground: the frame and the ellipse's mask.

    Speckled, so that no two grid cells are alike: where similarities tie, rounding chooses the point.
    """
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 120, (height // 6 + 1, width // 6 + 1, 3))
    frame = np.kron(coarse, np.ones((6, 6, 1)))[:height, :width].astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    centre = random.uniform(0.35, 0.65, 2) * (height, width)
    mask = ((y - centre[0]) / (0.2 * height)) ** 2 + ((x - centre[1]) / (0.15 * width)) ** 2 < 1
    frame[mask] = random.integers(150, 216, 3) + random.integers(0, 40, (int(mask.sum()), 3))
    return frame, mask
