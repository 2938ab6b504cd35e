"""Models with the official structure and a few channels, so that exporting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
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
