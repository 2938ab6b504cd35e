"""Fitting at toy size: bright ellipses on coarse ground, and a teacher that finds what is bright."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import samg_fast
from samg_fast.bundle import Bundle
from samg_fast.cli import app
from samg_fast.envs.backgrounds import VideoClip
from samg_fast.errors import BundleError, FileError, FitError, InputError
from samg_fast.fitting import fit
from samg_fast.fitting.compose import Composer, Odds
from samg_fast.fitting.labels import AGREEMENT, Labels, label
from samg_fast.media import read_mask, write_image
from samg_fast.metrics import iou
from support.synthetic_bundle import picture, write_fitted_bundle

SIDE = 32
PICTURES = [picture(SIDE, SIDE, seed) for seed in range(48)]
FRAMES = [frame for frame, _ in PICTURES]
MASKS = [mask for _, mask in PICTURES]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[samg_fast.Segmenter]:
    folder = write_fitted_bundle(tmp_path_factory.mktemp("teacher"), side=SIDE)
    with samg_fast.load(folder, backend="onnxruntime", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "ellipse"
    fit(None, None, FRAMES, folder, masks=MASKS, steps=120)
    return folder


def mean_iou(folder: Path, seeds: range) -> float:
    with samg_fast.load(folder, threads=1) as segmenter:
        shown = [picture(SIDE, SIDE, seed) for seed in seeds]
        return float(np.mean([iou(segmenter.segment(frame).mask, mask) for frame, mask in shown]))


def test_it_learns_its_target(fitted: Path) -> None:
    """On pictures that it was not shown; 0.19 is the IoU of everything, 0.3 that of the middle of the image."""
    assert mean_iou(fitted, range(1000, 1020)) > 0.7


def test_what_is_written(fitted: Path) -> None:
    manifest = Bundle.open(fitted).fitted
    assert manifest is not None
    assert (manifest.name, manifest.network.side, manifest.target) == ("ellipse", SIDE, None)
    assert 0.6 < manifest.accuracy["network"] <= 1
    assert manifest.present is not None
    assert manifest.agreement.get("bf16", 1.0) > 0.9
    assert sorted(each.name for each in fitted.iterdir() if each.suffix != ".onnx") == [
        "manifest.json", "report.html", "training",
    ]  # fmt: skip
    assert [each.name for each in fitted.glob("*.onnx")] == [manifest.network.file]
    assert (fitted / manifest.network.file).stat().st_size < 600_000
    page = (fitted / "report.html").read_text()
    assert "Accepted: it agrees with the labels of held-out frames by" in page
    assert "src=" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # the page is one file


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """It takes up at its step, and does not label again."""
    steps: list[int] = []

    def progress(what: str, done: int, _: int) -> None:
        if what == "training":
            steps.append(done)

    options: Any = {"masks": MASKS, "steps": 25, "progress": progress}
    with pytest.raises(KeyboardInterrupt):
        fit(None, None, FRAMES, tmp_path, **options, stop=lambda: len(steps) == 10)
    assert steps == list(range(1, 11))
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(FileError, match="is of a fit that was interrupted, of other frames or options: remove it"):
        fit(None, None, FRAMES[:-1], tmp_path, **{**options, "masks": MASKS[:-1]})
    with suppress(FitError):  # 25 steps teach little
        fit(None, None, FRAMES, tmp_path, **options)
    assert steps == list(range(1, 26))


def test_minutes_bound_the_steps(tmp_path: Path) -> None:
    seen: list[int] = []
    with suppress(FitError):
        fit(
            None, None, FRAMES, tmp_path, masks=MASKS, steps=100_000, minutes=0.02,
            progress=lambda what, _, total: seen.append(total) if what == "training" else None,
        )  # fmt: skip
    assert seen[0] == 100_000  # until the speed is known
    assert len(seen) == seen[-1] < 1000


def test_a_student_worse_than_its_teacher_is_refused(teacher: samg_fast.Segmenter, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"agrees with held-out labels by 0\.\d+ and must by 0\.\d+: nothing but"):
        fit(teacher, None, FRAMES, tmp_path, steps=3)
    assert not (tmp_path / "manifest.json").exists()
    page = (tmp_path / "report.html").read_text()
    assert "Refused" in page
    assert "Worst frames" in page
    assert "teacher: IoU" in page
    with pytest.raises(FitError):  # other options are not taken for the same run
        fit(teacher, None, FRAMES, tmp_path, steps=4)


def test_more_goes_on_without_forgetting(fitted: Path, tmp_path: Path) -> None:
    """New frames show the ellipse elsewhere: at the edge. Old ones are still found."""
    folder = tmp_path / "ellipse"
    shutil.copytree(fitted, folder)
    rolled = [(np.roll(frame, 10, 1), np.roll(mask, 10, 1)) for frame, mask in PICTURES[:40]]
    before = Bundle.open(folder).fingerprint
    report = fit(None, None, [f for f, _ in rolled], folder, masks=[m for _, m in rolled], steps=80, more=True)
    assert report.labelled == 40
    assert Bundle.open(folder).fingerprint != before
    assert len(list(folder.glob("*.onnx"))) == 1
    assert mean_iou(folder, range(1000, 1020)) > mean_iou(fitted, range(1000, 1020)) - 0.05
    with np.load(folder / "training" / "labels.npz") as arrays:
        assert len(arrays["frames"]) == 48 + 40
        with np.load(fitted / "training" / "labels.npz") as before_arrays:  # what was held out stays so
            np.testing.assert_array_equal(arrays["held"][:48], before_arrays["held"])


def test_frames_of_several_sizes_are_resized(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    big = picture(2 * SIDE, 2 * SIDE, 3)
    with caplog.at_level("INFO", "samg_fast"), pytest.raises((FitError, KeyboardInterrupt)):
        fit(
            None, None, [*FRAMES, big[0]], tmp_path, masks=[*MASKS, big[1]], steps=2, stop=lambda: True
        )  # fmt: skip
    assert "1 of 49 frames are not 32 x 32 pixels as the first, and are resized" in caplog.text


def test_wide_frames(tmp_path: Path) -> None:
    """The network's image is square; what the frame does not cover is empty, as in the runtime."""
    wide = [picture(24, 40, seed) for seed in range(40)]
    fit(None, None, [f for f, _ in wide], tmp_path / "wide", masks=[m for _, m in wide], steps=120)
    with samg_fast.load(tmp_path / "wide", threads=1) as segmenter:
        assert segmenter.bundle.fitted.network.side == 40
        shown = [picture(24, 40, seed) for seed in range(1000, 1010)]
        assert np.mean([iou(segmenter.segment(frame).mask, mask) for frame, mask in shown]) > 0.6


class TestBadInput:
    def test_too_few(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="frames are 31, and a fit needs at least 32 that show the target"):
            fit(None, None, FRAMES[:31], tmp_path, masks=MASKS[:31])

    def test_neither_teacher_nor_masks(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="segmenter must be given where masks are not"):
            fit(None, None, FRAMES, tmp_path)

    def test_a_teacher_that_finds_nothing(self, teacher: samg_fast.Segmenter, tmp_path: Path) -> None:
        dark = [frame // 8 for frame in FRAMES]
        with pytest.raises(InputError, match="the target is found surely in 0 of 48 frames, and a fit needs at least"):
            fit(teacher, None, dark, tmp_path, steps=5)

    def test_frames_without_the_target(self, tmp_path: Path) -> None:
        nothing = np.zeros((SIDE, SIDE), bool)
        with pytest.raises(InputError, match="the target is found surely in 8 of 48 frames"):
            fit(None, None, FRAMES, tmp_path, masks=[*MASKS[:8], *[nothing] * 40], steps=5)

    def test_a_folder_that_holds_a_fit(self, fitted: Path) -> None:
        with pytest.raises(FileError, match="holds a fitted bundle already: give another folder, or give it more"):
            fit(None, None, FRAMES, fitted, masks=MASKS)

    def test_more_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="holds no fitted bundle with its training"):
            fit(None, None, FRAMES, tmp_path, masks=MASKS, more=True)

    def test_another_bundles_target(self, shared_folder: Path, bundle_folder: Path, tmp_path: Path) -> None:
        with (
            samg_fast.load(shared_folder, threads=1) as one,
            samg_fast.load(bundle_folder, threads=1) as other,
            pytest.raises(BundleError, match="target was made with bundle"),
        ):
            fit(one, other.identify(*PICTURES[0]), FRAMES, tmp_path)

    def test_masks_of_another_number(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="masks must be 48, one for each frame, not 47"):
            fit(None, None, FRAMES, tmp_path, masks=MASKS[:-1])


class TestLabels:
    def test_what_most_looks_agree_on(self, teacher: samg_fast.Segmenter) -> None:
        found = label(teacher, None, np.stack(FRAMES))
        assert 0.8 * len(FRAMES) <= len(found) < len(FRAMES)  # the least sure are left out
        by_frame = {frame.tobytes(): mask for frame, mask in PICTURES}
        assert np.mean([iou(m, by_frame[f.tobytes()]) for f, m in zip(found.frames, found.masks, strict=True)]) > 0.8

    def test_unsure_frames_are_dropped(self, teacher: samg_fast.Segmenter) -> None:
        """A teacher whose looks at half of the frames do not agree."""
        rng = np.random.default_rng(0)

        class Unsure:
            bundle = teacher.bundle

            def segment_batch(self, frames: Any, target: None) -> list[Any]:
                found = teacher.segment_batch(frames)
                return [
                    replace(each, mask=rng.random(each.mask.shape) < 0.5) if index % 2 else each
                    for index, each in enumerate(found)
                ]

        found = label(Unsure(), None, np.stack(FRAMES[:16]))  # type: ignore[arg-type]
        kept = {frame.tobytes() for frame in found.frames}
        assert kept <= {frame.tobytes() for frame in FRAMES[0:16:2]}
        assert AGREEMENT == 0.6

    def test_frames_without_the_target_are_kept_as_such(self, teacher: samg_fast.Segmenter) -> None:
        frames = np.stack([*FRAMES[:12], *[np.zeros_like(FRAMES[0])] * 4])
        found = label(teacher, None, frames)
        assert (~found.present).sum() == 4
        assert not found.frames[~found.present].any()


class TestComposer:
    def drawn(self, odds: Odds, count: int = 40) -> tuple[Any, Any]:
        clip = VideoClip("blue", np.full((1, 60, 60, 3), (0, 0, 255), np.uint8))
        labels = Labels(np.stack(FRAMES[:4]), np.stack(MASKS[:4]))
        return Composer(labels, [clip], 48, np.random.default_rng(0), odds).batch(count)

    def test_own_frames(self) -> None:
        images, masks = self.drawn(Odds(0.0, 0.0, 0.0, 0.0, 0.0))
        areas = {int(mask.sum()) for mask in MASKS[:4]}
        assert {int(mask.sum()) for mask in masks} == areas
        assert (images[:, SIDE:] == (124, 116, 104)).all()  # what the frame does not cover
        assert not masks[:, SIDE:].any()

    def test_absent(self) -> None:
        assert not self.drawn(Odds(1.0, 1.0, 0.0, 0.0, 0.0))[1].any()

    def test_moved(self) -> None:
        masks = self.drawn(Odds(1.0, 0.0, 1.0, 0.0, 0.0))[1]
        middles = np.array([np.mean(np.nonzero(mask), axis=1) for mask in masks])
        assert middles.std(0).min() > 2
        assert np.ptp(masks.sum((1, 2))) > 40


class TestCommand:
    def test_frames_and_masks(self, tmp_path: Path) -> None:
        for folder in ("frames", "masks"):
            (tmp_path / folder).mkdir()
        for number, (frame, mask) in enumerate(PICTURES):
            write_image(tmp_path / "frames" / f"{number}.png", frame)
            write_image(tmp_path / "masks" / f"{number}.png", mask)
        (tmp_path / "behind").mkdir()
        write_image(tmp_path / "behind" / "grey.png", np.full((80, 90, 3), 90, np.uint8))
        figures = tmp_path / "figures.json"
        arguments = ["fit", "--frames", tmp_path / "frames", "--masks", tmp_path / "masks", "--backgrounds",
                     tmp_path / "behind", "--steps", 100, "-o", tmp_path / "out", "--json", figures]  # fmt: skip
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        assert "needs no target" in result.output
        values = json.loads(figures.read_text())
        assert values["given"] == values["labelled"] == 48
        assert values["teacher_iou"] is None
        segmented = CliRunner().invoke(
            app, ["segment", str(tmp_path / "frames"), "-o", str(tmp_path / "cut"), "--bundle", str(tmp_path / "out")]
        )
        assert segmented.exit_code == 0, segmented.output
        assert iou(read_mask(tmp_path / "cut" / "masks" / "0.png"), MASKS[0]) > 0.4

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "frames come from --frames or from --env"),
            (("--frames", "a", "--env", "walker_walk"), "frames come from --frames or from --env"),
            (("--frames", "a", "--truth"), "it is for --env"),
            (("--env", "walker_walk", "--masks", "a"), "it is for --frames"),
            (("--frames", "a"), "one of them must say what the target is"),
        ],
    )
    def test_options_that_do_not_go_together(self, arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["fit", "-o", str(tmp_path / "out"), *arguments])
        assert result.exit_code == 2
        assert words in " ".join(result.output.replace("│", " ").split())
