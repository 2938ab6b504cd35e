"""``samg-fast adapt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import samg_fast
from samg_fast.cli import app
from samg_fast.media import write_image
from support.synthetic_bundle import picture, write_bundle


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    (desk / "bundle").mkdir()
    write_bundle(desk / "bundle", shared=True)
    image, mask = picture(84, 84)
    write_image(desk / "image.png", image)
    write_image(desk / "mask.png", mask)
    with samg_fast.load(desk / "bundle", threads=1) as segmenter:
        segmenter.identify(image, mask, points=[(40, 40)]).save(desk / "given.safetensors")
    return desk


def run(desk: Path, out: Path, *options: Any, target: str = "given.safetensors", mask: str = "mask.png") -> Result:
    words = ["adapt", desk / target, desk / "image.png", desk / mask, "-o", out, "--bundle", desk / "bundle"]
    return CliRunner().invoke(app, [str(each) for each in [*words, "--threads", 1, *options]])


def test_it_is_the_segmenters_own(desk: Path, tmp_path: Path) -> None:
    result = run(desk, tmp_path / "adapted.safetensors", "--seed", 3, "--json", tmp_path / "figures.json")
    assert result.exit_code == 0, result.output
    adapted = samg_fast.Target.load(tmp_path / "adapted.safetensors")
    given = samg_fast.Target.load(desk / "given.safetensors")
    with samg_fast.load(desk / "bundle", threads=1) as segmenter:
        expected = segmenter.adapt(given, *picture(84, 84), seed=3)
    np.testing.assert_allclose(adapted.mask_weights, expected.mask_weights, atol=1e-5)
    np.testing.assert_array_equal(adapted.sam, given.sam)
    assert not np.allclose(adapted.mask_weights, given.mask_weights)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"target", "mask_weights", "iou_before", "iou"}
    assert "mask weights" in result.output


def test_what_cannot_be_adapted(desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapted.safetensors"
    assert "mask.png cannot be read" in run(desk, out, target="mask.png").stderr
    result = run(desk, desk / "image.png")
    assert result.exit_code == 2
    assert "would overwrite a picture it is made of" in " ".join(result.stderr.split())
    write_image(desk / "small.png", np.ones((9, 9), bool))
    assert "mask must have the picture's size (84, 84)" in run(desk, out, mask="small.png").stderr
    assert not out.exists()
