"""L0 and ViT-S/14 from checkpoint files to masks, on every backend, against what the official code gave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra export")

from golden_frames import GOLDEN, TASKS, Turn, assert_close, check_frame
from samg_fast.export import export_bundle
from samg_fast.export.dinov2 import DinoV2
from samg_fast.export.sam import EfficientViTSam

import samg_fast
from benchmarks.weights import filled, write_checkpoint
from samg_fast import ops

FEATURE = 1e-4
"""Of a feature's or a map's largest value: what the project promises in float32. Found: 1e-6."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the golden weights from files as their authors write them."""
    where = tmp_path_factory.mktemp("official")
    write_checkpoint(filled(EfficientViTSam("l0")), where / "l0.pt", nested=True)
    write_checkpoint(filled(DinoV2("vits14")), where / "vits14.pth", nested=False)
    report = export_bundle(
        "efficientvit-sam-l0", where / "l0.pt", "dinov2-vits14", where / "vits14.pth", where / "bundle"
    )
    assert all(each.holds for each in report.outputs)
    return report.path


@pytest.fixture(scope="module")
def segmenter(folder: Path, backend: str) -> Iterator[samg_fast.Segmenter]:
    """Open it on each backend."""
    with samg_fast.load(folder, backend=backend, threads=2) as opened:
        yield opened


@pytest.mark.parametrize("task", TASKS)
def test_frames(segmenter: samg_fast.Segmenter, task: str) -> None:
    with np.load(GOLDEN / f"samg_l0_dinov2_vits14_{task}.npz") as golden:
        parts = [golden[name] for name in sorted(golden.files) if name.startswith("extra_mask_image")]
        points = golden["extra_points_xy"] if len(golden["extra_points_xy"]) else ()
        reference, masked = golden["reference_image"], golden["reference_mask_image"]
        target = segmenter.identify_masked_picture(reference, masked, points, parts)
        assert_close(target.sam[None], golden["target_sam"], FEATURE)
        assert_close(target.dino[None], golden["target_dino"], FEATURE)
        if target.parts:
            assert_close(target.parts_sam, golden["parts_sam"], FEATURE)
            assert_close(target.parts_dino, golden["parts_dino"], FEATURE)
        for name in ("clean0", "blob0", "clean1", "blob1"):
            check(segmenter, target, golden, name)


def check(segmenter: samg_fast.Segmenter, target: samg_fast.Target, golden: Any, name: str) -> None:
    out = segmenter.segment(golden[f"frame.{name}.image"], target, trace=True)
    assert out.trace is not None
    height, width = out.mask.shape
    turns = [
        Turn(
            each.points,
            each.labels,
            each.box,
            each.iou,
            each.low_res,
            areas(each.low_res, height, width),
        )
        for each in out.trace.decodes
    ]
    check_frame(golden, name, out.trace.similarity, turns, out.masked, maps=FEATURE)


def areas(low_res: Any, height: int, width: int) -> Any:
    """Pixels of each of a decode's masks at the frame's size."""
    alone = np.ones((len(low_res), 1), np.float32)
    return ops.resize_logits(low_res[:, None], weights=alone, prompt_side=1024, height=height, width=width).area
