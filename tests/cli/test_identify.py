"""What `samg-fast identify` makes of mask files, and what it says of a target that does not find itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
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
    Image.fromarray(np.where(mask, 2, np.eye(84, dtype=bool)).astype(np.uint8)).save(desk / "labels.png")
    layer = Image.new("RGBA", (84, 84), "white")
    layer.putalpha(Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)))
    layer.save(desk / "layer.png")
    cut_out = Image.fromarray(image)
    cut_out.putalpha(layer.getchannel("A"))
    cut_out.save(desk / "cut-out.png")
    return desk


@pytest.fixture
def identify(desk: Path, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs `samg-fast identify IMAGE MASK`."""

    def run(mask: str, *options: Any) -> Result:
        given = ["identify", desk / "image.png", desk / mask, "-o", tmp_path / "t.safetensors", *options]
        given += ["--bundle", desk / "bundle", "--threads", 1]
        return CliRunner().invoke(app, [str(each) for each in given])

    return run


@pytest.mark.parametrize(("mask", "options"), [("layer.png", ()), ("labels.png", ("--label", 2))])
def test_masks_that_are_not_black_and_white(
    identify: Callable[..., Result], tmp_path: Path, mask: str, options: tuple[Any, ...]
) -> None:
    assert identify("mask.png").exit_code == 0
    expected = samg_fast.Target.load(tmp_path / "t.safetensors")
    result = identify(mask, *options)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(samg_fast.Target.load(tmp_path / "t.safetensors").sam, expected.sam)
    assert ("transparency is the mask" in result.stderr) == (mask == "layer.png")


def test_a_cut_out_is_a_masked_picture(identify: Callable[..., Result], desk: Path, tmp_path: Path) -> None:
    mask = np.asarray(Image.open(desk / "mask.png")) > 0
    write_image(desk / "masked.png", np.where(mask[..., None], np.asarray(Image.open(desk / "image.png")), np.uint8(0)))
    assert identify("masked.png", "--masked-picture").exit_code == 0
    expected = samg_fast.Target.load(tmp_path / "t.safetensors")
    result = identify("cut-out.png", "--masked-picture")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(samg_fast.Target.load(tmp_path / "t.safetensors").sam, expected.sam)


def test_a_label_that_is_not_there(identify: Callable[..., Result], tmp_path: Path) -> None:
    result = identify("labels.png", "--label", 7)
    assert result.exit_code == 1
    assert "label 7 is not in it; it holds 0 (" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "t.safetensors").exists()


def test_a_masked_picture_has_no_labels(identify: Callable[..., Result]) -> None:
    result = identify("cut-out.png", "--masked-picture", "--label", 1)
    assert result.exit_code == 2
    assert "--label" in result.stderr


@pytest.mark.parametrize(("found", "warned"), [(0, True), (1, False)])
def test_a_target_that_does_not_find_itself(
    identify: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: int, warned: bool
) -> None:
    monkeypatch.setattr("samg_fast.metrics.iou", lambda *_: float(found))
    result = identify("mask.png", "--json", "-")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "t.safetensors").exists()
    assert json.loads(result.stdout)["iou"] == found
    lines = [line for line in result.stderr.splitlines() if line.startswith("samg-fast: warning: ")]
    assert len(lines) == warned
    if warned:
        assert "image.png (IoU 0.00)" in lines[0]
        assert "--point" in lines[0]


def test_clicks_in_place_of_a_mask(desk: Path, tmp_path: Path) -> None:
    """The mask that was made of them lies beside the target, and identifies the same."""

    def run(*given: Any) -> Result:
        words = ["identify", desk / "image.png", *given, "--bundle", desk / "bundle", "--threads", 1]
        return CliRunner().invoke(app, [str(each) for each in words])

    clicks = ("--click", "40,40", "--click", "44,40", "--not", "5,5", "--box", "20,10,70,70")
    result = run(*clicks, "-o", tmp_path / "clicked.safetensors")
    assert result.exit_code == 0, result.output
    assert run(tmp_path / "clicked.mask.png", "-o", tmp_path / "masked.safetensors").exit_code == 0
    clicked, masked = (samg_fast.Target.load(tmp_path / f"{name}.safetensors") for name in ("clicked", "masked"))
    np.testing.assert_array_equal(clicked.sam, masked.sam)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "must be given, or else --click or --box"),
        (("mask.png", "--click", "3,3"), "and not both"),
        (("--not", "3,3"), "must be given, or else --click or --box"),
        (("--click", "3"), "'3' is not two numbers with a comma between"),
        (("--box", "1,2,3"), "'1,2,3' is not four numbers with a comma between"),
        (("--click", "84,3"), "points has (84, 3), which is not a point of the picture"),
        (("--box", "3,3,3,9"), "box has no area"),
        (("--click", "3,3", "--masked-picture"), "reads MASK, which is not given"),
    ],
)
def test_bad_clicks(desk: Path, tmp_path: Path, given: tuple[str, ...], words: str) -> None:
    mask = [str(desk / each) if each == "mask.png" else each for each in given]
    options = ["-o", str(tmp_path / "t.safetensors"), "--bundle", str(desk / "bundle"), "--threads", "1"]
    result = CliRunner().invoke(app, ["identify", str(desk / "image.png"), *mask, *options])
    assert result.exit_code in (1, 2)
    assert words in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
