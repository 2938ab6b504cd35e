"""TensorRT-RTX compiles every graph that a bundle can hold, ahead of time, without a GPU.

At true widths and sides. A deep one takes a minute or more, though its blocks are alike: by default it has two blocks a
stage, and is compiled whole among the slow tests.

The graphs are traced and converted to half precision as in an export, with three differences. Weights are random.
Ranges are not measured, as that needs a run of each network; the changes that they cause (divided operands, products in
float32) are compiled for two networks, as if all of their values were large. The blocks of ViT-L share one set of
weights to save memory; every block is still compiled. ViT-g is left out, because it takes minutes.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="exporting needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="compiling needs the extra tensorrt-rtx")

from onnx import numpy_helper  # noqa: E402

from samg_fast.backends.tensorrt import build_engine  # noqa: E402
from samg_fast.bundle import Bundle, zoo  # noqa: E402
from samg_fast.export.bundle import DINO_SIDE, SLOTS  # noqa: E402
from samg_fast.export.convert import float_graph  # noqa: E402
from samg_fast.export.dinov2 import FEATURES, DinoV2, PatchFeatures  # noqa: E402
from samg_fast.export.efficientvit import ENCODERS  # noqa: E402
from samg_fast.export.fuse import fuse  # noqa: E402
from samg_fast.export.graph import drop_unused, save_graph, trace  # noqa: E402
from samg_fast.export.precision import to_half, watched  # noqa: E402
from samg_fast.export.sam import CHANNELS, GRID, EfficientViTSam, PromptDecoder  # noqa: E402
from samg_fast.export.tokens import TokenDecoder  # noqa: E402

BATCHES = (1, 8)
"""Batch sizes that engines of graphs with a dynamic batch are tuned for."""

GRAPHS = [*ENCODERS, *(name for name in FEATURES if not name.startswith("vitg")), "decoder"]


def at_depths(names: Sequence[str], quick: Sequence[str]) -> list[Any]:
    """Parametrise by name and blocks a stage: two, and all of them, which is slow; for what is quick, all alone."""
    shallow = [pytest.param(name, 2, id=f"{name}-shallow") for name in names if name not in quick]
    marks = {True: (), False: pytest.mark.slow}
    return shallow + [pytest.param(name, None, id=name, marks=marks[name in quick]) for name in names]


def traced(name: str, blocks: int | None, *, dynamic_batch: bool = False) -> onnx.ModelProto:
    """Trace an image network by the name of its model, with so many blocks a stage at most, or the decoder."""
    with pytest.MonkeyPatch.context() as patch:
        if blocks is not None:
            encoder, features = ENCODERS.get(name), FEATURES.get(name)
            if encoder is not None:
                depths = tuple(min(depth, blocks) for depth in encoder.depths)
                neck = min(encoder.neck_depth, blocks)
                patch.setitem(ENCODERS, name, replace(encoder, depths=depths, neck_depth=neck))
            if features is not None:
                patch.setitem(FEATURES, name, replace(features, depth=blocks))
        return traced_whole(name, dynamic_batch)


def traced_whole(name: str, dynamic_batch: bool) -> onnx.ModelProto:
    """Trace a network as deep as its shape says."""
    batch = 2 if dynamic_batch else 1
    if name == "decoder":
        sam = EfficientViTSam("l0").eval().requires_grad_(False)
        return trace(
            TokenDecoder(PromptDecoder(fuse(sam))).eval(),
            {
                "embedding": torch.zeros(batch, CHANNELS, GRID, GRID),
                "point_coords": torch.zeros(batch, SLOTS, 2),
                "point_labels": torch.zeros(batch, SLOTS),
                "mask_input": torch.zeros(batch, 1, 4 * GRID, 4 * GRID),
                "has_mask_input": torch.ones(batch),
            },
            ["low_res_masks", "iou"],
            dynamic_batch=dynamic_batch,
        )
    if name in ENCODERS:
        sam = EfficientViTSam(name).eval().requires_grad_(False)
        network, side, output = fuse(sam).image_encoder, sam.shape.side, "embedding"
    else:
        network, side, output = PatchFeatures(fuse(dino(name)), DINO_SIDE).eval(), DINO_SIDE, "features"
    model = trace(network, {"image": torch.zeros(batch, 3, side, side)}, [output], dynamic_batch=dynamic_batch)
    return with_turned_weights(model)


def dino(name: str) -> Any:
    """Build a DINOv2 with random weights; the blocks of a large one share the weights of one block."""
    with torch.device("meta"):
        model = DinoV2(name)
    if name.startswith("vitl"):
        model.blocks = torch.nn.ModuleList([model.blocks[0]] * len(model.blocks))
    model.to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02)
    return model


def with_turned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Transpose shared weights in place, as the exporter does with weights that are not shared."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        order = next(list(attribute.ints) for attribute in node.attribute if attribute.name == "perm")
        values = numpy_helper.to_array(weights[node.input[0]]).transpose(order)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), node.output[0]))
        graph.node.remove(node)
    drop_unused(graph)
    return model


def weighs(model: onnx.ModelProto) -> int:
    """Return the size of a graph's weights in bytes."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def saved(model: onnx.ModelProto, folder: Path, precision: str) -> Path:
    """Write a graph."""
    path = folder / f"graph.{precision}.onnx"
    save_graph(model, path)
    return path


def compiled(path: Path, precision: str, batches: Sequence[int] = (1,), capabilities: Sequence[str] = ("8.9",)) -> int:
    """Compile a graph, and return the size of its engine, including the weights, in bytes."""
    made = build_engine(path, backend="tensorrt-rtx", precision=precision, batches=batches, capabilities=capabilities)
    assert len(made.engine) > 0.9 * path.stat().st_size
    return len(made.engine)


@pytest.mark.parametrize(("name", "blocks"), at_depths(GRAPHS, quick=("l0", "vits14", "decoder")))
def test_official_graphs(name: str, blocks: int | None, tmp_path: Path) -> None:
    """Each graph compiles, and the half-precision engine is smaller by what float16 saves on the weights."""
    model = traced(name, blocks)
    half = to_half(model, "fp16")
    weights, saving = weighs(model), weighs(model) - weighs(half)
    assert saving > 0.35 * weights  # nearly half; the decoder has an additional constant of 4 MiB
    paths = {"fp32": saved(model, tmp_path, "fp32"), "fp16": saved(half, tmp_path, "fp16")}
    del model, half
    gc.collect()  # the exporter leaves reference cycles that hold weights, and XL1 needs much memory
    sizes = {precision: compiled(path, precision) for precision, path in paths.items()}
    assert sizes["fp32"] - sizes["fp16"] > 0.85 * saving


@pytest.mark.parametrize(("name", "blocks"), at_depths(["l0", "vits14"], quick=("l0",)))
def test_other_half_precisions(name: str, blocks: int | None, tmp_path: Path) -> None:
    """bfloat16, and float16 with all changes that ranges can cause: divided operands, products in float32."""
    model = traced(name, blocks)
    compiled(saved(to_half(model, "bf16"), tmp_path, "bf16"), "bf16")
    weights = {tensor.name for tensor in model.graph.initializer}
    large = to_half(model, "fp16", {value: 1e6 for value in watched(model.graph) if value not in weights})
    assert count("Mul", large) > count("Mul", to_half(model, "fp16")) + 10
    compiled(saved(large, tmp_path, "fp16"), "fp16")


def count(kind: str, model: onnx.ModelProto) -> int:
    """Count the nodes of an operator."""
    return sum(node.op_type == kind for node in model.graph.node)


@pytest.mark.parametrize(("name", "blocks"), at_depths(["l0", "vits14", "decoder"], quick=("l0", "decoder")))
def test_dynamic_batch(name: str, blocks: int | None, tmp_path: Path) -> None:
    """Two profiles; and the same for two capabilities in one engine, which is larger."""
    path = saved(to_half(traced(name, blocks, dynamic_batch=True), "fp16"), tmp_path, "fp16")
    one = compiled(path, "fp16", BATCHES)
    assert compiled(path, "fp16", BATCHES, ("8.0", "12.0")) > one


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_the_shipped_bundle(role: Any, tmp_path: Path) -> None:
    """With weights stored as float16 and cast at load and a dynamic batch, and in half precision.

    Of the decoder, kernels take more than its 0.5 MB of weights, so that only the encoder's engine must become smaller.
    """
    path = Bundle.open(zoo.resolve("tiny")).onnx_path(role)
    whole = compiled(path, "fp32", BATCHES)
    half = compiled(saved(to_half(float_graph(path), "fp16"), tmp_path, "fp16"), "fp16", BATCHES)
    assert half < whole or (role == "decoder" and half < 1.1 * whole)
