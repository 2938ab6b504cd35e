"""L0 and ViT-S/14 from checkpoint files to masks, on every backend, compared with the official code's results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra export")

import samg_fast
from benchmarks.eager.weights import filled, write_checkpoint
from samg_fast.export import export_bundle
from samg_fast.export.dinov2 import DinoV2
from samg_fast.export.sam import EfficientViTSam
from support.golden_frames import FEATURE, GOLDEN, TASKS, assert_close, check_segmenter
from support.once import once


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the golden weights from checkpoint files in the official format."""

    def export(where: Path) -> Path:
        write_checkpoint(filled(EfficientViTSam("l0")), where / "l0.pt", nested=True)
        write_checkpoint(filled(DinoV2("vits14")), where / "vits14.pth", nested=False)
        report = export_bundle(
            "efficientvit-sam-l0", where / "l0.pt", "dinov2-vits14", where / "vits14.pth", where / "bundle"
        )
        assert all(each.holds for each in report.outputs)
        return report.path

    return once(tmp_path_factory, "official", export)


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
            check_segmenter(segmenter, target, golden, name)
