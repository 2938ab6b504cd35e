"""Models with the official structure and a few channels, so that exporting one takes seconds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

DINO_SIDE = 112
"""Input side that the toys are exported with."""


def small_encoder(side: int, widths: tuple[int, ...]) -> Any:
    """Shape an encoder with one block of each kind and few channels."""
    from samg_fast.export.efficientvit import EncoderShape

    return EncoderShape(
        side=side,
        widths=widths,
        depths=(1, 1, 1, 1, 1),
        blocks=("res", "fmb", "fmb", "mb", "att5"),
        expands=(1, 2, 2, 2, 2),
        fewer_norms=(False, False, False, True, True),
        neck_depth=1,
        neck_expand=1,
    )


@pytest.fixture(scope="session")
def toys() -> Iterator[None]:
    """Let "efficientvit-sam-toy", "dinov2-toy" and "dinov2-toy-reg" name models while the tests run."""
    pytest.importorskip("torch", reason="exporting needs the extra export")
    from samg_fast.export import models
    from samg_fast.export.dinov2 import FEATURES, FeatureShape
    from samg_fast.export.efficientvit import ENCODERS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "toy", small_encoder(512, (8, 8, 16, 32, 64)))
        patch.setitem(FEATURES, "toy", FeatureShape(64, 2, 4))
        patch.setitem(FEATURES, "toy-reg", FeatureShape(48, 2, 3, gated=True, registers=4))
        models.known_shapes.cache_clear()
        yield
    models.known_shapes.cache_clear()


@pytest.fixture(scope="session")
def quick_exports() -> Iterator[None]:
    """Trace the same network once only, and measure how precisions agree on two frames, one task's, in place of 16."""
    pytest.importorskip("torch", reason="exporting needs the extra export")
    from samg_fast.export import agreement, bundle
    from samg_fast.parity import sample_frames

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "trace", remembered(bundle.trace))
        patch.setattr(agreement, "sample_frames", lambda **_: sample_frames(tasks=1))
        yield


def remembered(trace: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what was traced, by the network's weights and the shapes of its inputs."""
    import onnx

    made: dict[Any, bytes] = {}

    @functools.wraps(trace)
    def traced(network: Any, inputs: Mapping[str, Any], outputs: Sequence[str], *, dynamic_batch: bool) -> Any:
        weights = hashlib.sha256()
        for name, value in network.state_dict().items():
            weights.update(name.encode() + value.numpy().tobytes())
        shapes = tuple((name, tuple(value.shape)) for name, value in inputs.items())
        key = (type(network), weights.digest(), shapes, tuple(outputs), dynamic_batch)
        if key not in made:
            made[key] = trace(network, inputs, outputs, dynamic_batch=dynamic_batch).SerializeToString()
        return onnx.load_from_string(made[key])

    return traced


@pytest.fixture(scope="session")
def sam_checkpoint(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint as the authors of EfficientViT-SAM do."""
    from benchmarks.eager.weights import filled, write_checkpoint
    from samg_fast.export.sam import EfficientViTSam

    path = tmp_path_factory.mktemp("checkpoints") / "toy_sam.pt"
    write_checkpoint(filled(EfficientViTSam("toy")), path, nested=True)
    return path


@pytest.fixture(scope="session")
def dino_checkpoint(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint as the authors of DINOv2 do."""
    from benchmarks.eager.weights import filled, write_checkpoint
    from samg_fast.export.dinov2 import DinoV2

    path = tmp_path_factory.mktemp("checkpoints") / "toy_dino.pth"
    write_checkpoint(filled(DinoV2("toy")), path, nested=False)
    return path
