"""identify, segment and demo from end to end: what they write, what they refuse, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import samg_fast
from samg_fast.cli import app
from samg_fast.media import VideoReader, VideoWriter, read_image, read_mask, write_image
from support.paths import ROOT
from support.rendering import needs_rendering
from support.synthetic_bundle import picture, write_bundle


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a bundle, a reference picture with masks, a target, a video and a folder of pictures."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "bundle").mkdir()
    write_bundle(desk / "bundle", shared=True)
    image, mask = picture(84, 84)
    write_image(desk / "image.png", image)
    write_image(desk / "mask.png", mask)
    write_image(desk / "masked.png", np.where(mask[..., None], image, 0).astype(np.uint8))
    with samg_fast.load(desk / "bundle", threads=1) as segmenter:
        segmenter.identify(image, mask).save(desk / "target.safetensors")
    write_video(desk / "video.mp4", 12)
    (desk / "folder").mkdir()
    for number in (1, 2, 10):
        write_image(desk / "folder" / f"{number}.png", picture(60, 90, seed=number)[0])
    return desk


def write_video(path: Path, count: int, side: int = 64) -> None:
    frame = picture(side, side)[0]
    with VideoWriter(path, 25) as video:
        for shift in range(count):
            video.write(np.roll(frame, shift, axis=1))


def run(*arguments: Any, bundle: Path | None = None) -> Result:
    options = [] if bundle is None else ["--bundle", str(bundle), "--threads", "1"]
    return CliRunner().invoke(app, [str(argument) for argument in arguments] + options)


def refused(result: Result, *words: str) -> None:
    """Assert that a command failed with one line that holds some words."""
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("samg-fast: ")
    assert all(word in line for word in words), line
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


class TestIdentify:
    def test_writes_a_target(self, desk: Path, tmp_path: Path) -> None:
        out = tmp_path / "new.safetensors"
        result = run(
            "identify", desk / "image.png", desk / "mask.png", "-o", out, "--point", "40,41.5", "--point", "44,40",
            "--part", desk / "mask.png", "--json", "-", bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        figures = json.loads(result.stdout)
        assert figures == {**figures, "target": str(out), "parts": 3}
        assert 0 <= figures["iou"] <= 1
        target = samg_fast.Target.load(out)
        assert target.part_is_point.tolist() == [False, True, True]

    def test_agrees_with_the_module(self, desk: Path, tmp_path: Path) -> None:
        out = tmp_path / "new.safetensors"
        run("identify", desk / "image.png", desk / "mask.png", "-o", out, bundle=desk / "bundle")
        expected = samg_fast.Target.load(desk / "target.safetensors")
        np.testing.assert_array_equal(samg_fast.Target.load(out).sam, expected.sam)

    def test_reads_masked_pictures(self, desk: Path, tmp_path: Path) -> None:
        out = tmp_path / "new.safetensors"
        result = run(
            "identify", desk / "image.png", desk / "masked.png", "-o", out, "--masked-picture", bundle=desk / "bundle"
        )
        assert result.exit_code == 0, result.output
        image, masked = read_image(desk / "image.png"), read_image(desk / "masked.png")
        with samg_fast.load(desk / "bundle", threads=1) as segmenter:
            expected = segmenter.identify_masked_picture(image, masked)
        np.testing.assert_array_equal(samg_fast.Target.load(out).sam, expected.sam)

    def test_several_pictures(self, desk: Path, tmp_path: Path) -> None:
        images, masks = zip(
            *(picture(*size, seed=seed) for seed, size in enumerate([(84, 84), (60, 90), (84, 84)])), strict=True
        )
        for number in (1, 2):
            write_image(tmp_path / f"{number}.png", images[number])
            write_image(tmp_path / f"mask{number}.png", masks[number])
        out = tmp_path / "new.safetensors"
        result = run(
            "identify", desk / "image.png", desk / "mask.png", "-o", out, "--json", "-", "--point", "40,41",
            "--part", desk / "mask.png", "--also", f"{tmp_path}/1.png,{tmp_path}/mask1.png",
            "--also", f"{tmp_path}/2.png,{tmp_path}/mask2.png", bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        target = samg_fast.Target.load(out)
        with samg_fast.load(desk / "bundle", threads=1) as segmenter:
            expected = segmenter.identify(images, masks, [[(40, 41)], (), ()], [[masks[0]], (), ()])
            found = [segmenter.segment(image, target).mask for image in images]
        np.testing.assert_array_equal(target.all_sam, expected.all_sam)
        figures = json.loads(result.stdout)
        ious = [(one & other).sum() / (one | other).sum() for one, other in zip(found, masks, strict=True)]
        assert [each["iou"] for each in figures["pictures"]] == pytest.approx(ious, abs=1e-4)
        assert [Path(each["image"]).name for each in figures["pictures"]] == ["image.png", "1.png", "2.png"]
        assert figures["iou"] == pytest.approx(np.mean(ious), abs=1e-4)
        line = "2 parts, IoU on its own 3 pictures " + " ".join(f"{each:.2f}" for each in ious)
        assert line in result.stderr

    def test_names_the_picture_that_is_wrong(self, desk: Path, tmp_path: Path) -> None:
        write_image(tmp_path / "mask.png", np.zeros((84, 84), bool))
        image = desk / "image.png"
        result = run(
            "identify", image, desk / "mask.png", "-o", tmp_path / "t", "--also", f"{image},{tmp_path}/mask.png",
            bundle=desk / "bundle",
        )  # fmt: skip
        refused(result, "mask[1] is empty")

    @pytest.mark.parametrize("also", ["a.png", "a.png,", ",b.png", "a.png,b.png,c.png"])
    def test_refuses_what_is_no_pair(self, desk: Path, tmp_path: Path, also: str) -> None:
        result = run("identify", desk / "image.png", desk / "mask.png", "-o", tmp_path / "t", "--also", also)
        assert result.exit_code == 2
        assert "--also" in result.stderr
        assert not (tmp_path / "t").exists()

    def test_reads_one_masked_picture_only(self, desk: Path, tmp_path: Path) -> None:
        image, masked, out = desk / "image.png", desk / "masked.png", tmp_path / "t"
        result = run("identify", image, masked, "-o", out, "--masked-picture", "--also", f"{image},{masked}")
        assert result.exit_code == 2
        assert "--masked-picture" in result.stderr
        assert not out.exists()

    def test_does_not_overwrite_another_picture(self, desk: Path, tmp_path: Path) -> None:
        out = shutil.copy(desk / "mask.png", tmp_path / "mask.png")
        image = desk / "image.png"
        result = run("identify", image, desk / "mask.png", "-o", out, "--also", f"{image},{out}")
        assert result.exit_code == 2
        assert read_mask(out).any()

    def test_refuses_a_mask_of_another_size(self, desk: Path, tmp_path: Path) -> None:
        write_image(tmp_path / "mask.png", np.ones((84, 83), bool))
        out = tmp_path / "new.safetensors"
        result = run("identify", desk / "image.png", tmp_path / "mask.png", "-o", out, bundle=desk / "bundle")
        refused(result, "mask", "(84, 84)", "(84, 83)")
        assert not out.exists()

    def test_refuses_an_empty_mask(self, desk: Path, tmp_path: Path) -> None:
        write_image(tmp_path / "mask.png", np.zeros((84, 84), bool))
        result = run(
            "identify", desk / "image.png", tmp_path / "mask.png", "-o", tmp_path / "t", bundle=desk / "bundle"
        )
        refused(result, "mask is empty")

    def test_refuses_a_point_outside(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "identify", desk / "image.png", desk / "mask.png", "-o", tmp_path / "t", "--point", "84,0",
            bundle=desk / "bundle",
        )  # fmt: skip
        refused(result, "(84, 0)")

    def test_refuses_what_is_no_picture(self, desk: Path, tmp_path: Path) -> None:
        (tmp_path / "image.png").write_text("no picture")
        result = run(
            "identify", tmp_path / "image.png", desk / "mask.png", "-o", tmp_path / "t", bundle=desk / "bundle"
        )
        refused(result, "image.png", "not a picture")

    def test_refuses_to_start_where_nothing_can_be_written(self, desk: Path, tmp_path: Path) -> None:
        out = tmp_path / "missing" / "t.safetensors"
        result = run("identify", tmp_path / "never-read", desk / "mask.png", "-o", out, bundle=desk / "bundle")
        refused(result, "cannot write", str(out))

    def test_refuses_a_corrupt_bundle(self, desk: Path, tmp_path: Path) -> None:
        bundle = tmp_path / "bundle"
        shutil.copytree(desk / "bundle", bundle)
        network = bundle / "decoder.onnx"
        network.write_bytes(network.read_bytes()[:-100])
        result = run("identify", desk / "image.png", desk / "mask.png", "-o", tmp_path / "t", bundle=bundle)
        refused(result, "decoder.onnx", "truncated or altered")

    def test_refuses_an_unknown_bundle(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "identify", desk / "image.png", desk / "mask.png", "-o", tmp_path / "t", bundle=tmp_path / "nothing"
        )
        refused(result, "nothing")


class TestSegment:
    def test_video(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "segment", desk / "video.mp4", "-t", desk / "target.safetensors", "-o", tmp_path / "out", "--json", "-",
            bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        out = tmp_path / "out"
        results = json.loads((out / "results.json").read_text())
        assert json.loads(result.stdout) == results
        assert results["complete"] is True
        assert [frame["name"] for frame in results["frames"]] == [f"{number:06d}" for number in range(12)]
        assert len(list(VideoReader(out / "overlay.mp4"))) == 12
        assert VideoReader(out / "overlay.mp4").fps == 25
        masks = [read_mask(out / frame["mask"]) for frame in results["frames"]]
        assert [int(mask.sum()) for mask in masks] == [frame["area"] for frame in results["frames"]]
        summary = results["summary"]
        assert summary["frames"] == 12
        assert summary["ms"]["p50"] <= summary["ms"]["p95"] <= summary["ms"]["p99"]

    def test_agrees_with_the_module(self, desk: Path, tmp_path: Path) -> None:
        run("segment", desk / "folder", "-t", desk / "target.safetensors", "-o", tmp_path, bundle=desk / "bundle")
        frame = read_image(desk / "folder" / "10.png")
        with samg_fast.load(desk / "bundle", threads=1) as segmenter:
            out = segmenter.segment(frame, samg_fast.Target.load(desk / "target.safetensors"))
        entry = json.loads((tmp_path / "results.json").read_text())["frames"][-1]
        assert np.array_equal(read_mask(tmp_path / entry["mask"]), out.mask)
        assert entry["score"] == pytest.approx(out.score, abs=1e-4)
        assert entry["box"] == (None if out.box is None else list(out.box))

    def test_folder(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "segment", desk / "folder", "-t", desk / "target.safetensors", "-o", tmp_path, bundle=desk / "bundle"
        )
        assert result.exit_code == 0, result.output
        results = json.loads((tmp_path / "results.json").read_text())
        assert [frame["name"] for frame in results["frames"]] == ["1", "2", "10"]
        assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["1.png", "10.png", "2.png"]
        assert not (tmp_path / "overlay.mp4").exists()

    def test_picture(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "segment", desk / "image.png", "-t", desk / "target.safetensors", "-o", tmp_path, bundle=desk / "bundle"
        )
        assert result.exit_code == 0, result.output
        assert "1 frame," in result.stdout
        assert read_mask(tmp_path / "masks" / "image.png").shape == (84, 84)
        assert read_image(tmp_path / "overlays" / "image.png").shape == (336, 336, 3)

    def test_refuses_an_unreadable_video(self, desk: Path, tmp_path: Path) -> None:
        (tmp_path / "video.mp4").write_bytes(b"no video" * 100)
        result = run(
            "segment", tmp_path / "video.mp4", "-t", desk / "target.safetensors", "-o", tmp_path / "out",
            bundle=desk / "bundle",
        )  # fmt: skip
        refused(result, "video.mp4", "not a video")

    def test_a_damaged_frame_keeps_those_before(self, desk: Path, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        with VideoWriter(tmp_path / "video.mp4", 25) as video:
            for shift in range(30):
                video.write(np.roll(noise, shift, axis=0))
        data = (tmp_path / "video.mp4").read_bytes()
        middle = len(data) // 2
        (tmp_path / "video.mp4").write_bytes(data[:middle] + bytes(2000) + data[middle + 2000 :])
        out = tmp_path / "out"
        result = run(
            "segment", tmp_path / "video.mp4", "-t", desk / "target.safetensors", "-o", out, bundle=desk / "bundle"
        )
        refused(result, "cannot read frame", "video.mp4")
        results = json.loads((out / "results.json").read_text())
        assert results["complete"] is False
        assert 0 < len(results["frames"]) < 30
        assert len(list((out / "masks").iterdir())) == len(results["frames"])
        assert len(list(VideoReader(out / "overlay.mp4"))) == len(results["frames"])

    @pytest.mark.parametrize("out", ["file", "file/below"])
    def test_refuses_an_output_folder_that_cannot_be(self, desk: Path, tmp_path: Path, out: str) -> None:
        (tmp_path / "file").write_text("kept")
        result = run(
            "segment", desk / "video.mp4", "-t", desk / "target.safetensors", "-o", tmp_path / out,
            bundle=desk / "bundle",
        )  # fmt: skip
        refused(result, "cannot write into the folder", out)
        assert (tmp_path / "file").read_text() == "kept"

    def test_refuses_a_damaged_target(self, desk: Path, tmp_path: Path) -> None:
        data = (desk / "target.safetensors").read_bytes()
        (tmp_path / "target.safetensors").write_bytes(data[:-8])
        result = run(
            "segment", desk / "video.mp4", "-t", tmp_path / "target.safetensors", "-o", tmp_path / "out",
            bundle=desk / "bundle",
        )  # fmt: skip
        refused(result, "target.safetensors")

    def test_refuses_a_target_of_another_bundle(self, desk: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        write_bundle(tmp_path / "other", shared=True, seed=1)
        result = run(
            "segment", desk / "video.mp4", "-t", desk / "target.safetensors", "-o", tmp_path / "out",
            bundle=tmp_path / "other",
        )  # fmt: skip
        refused(result, "target", "bundle")

    def test_an_earlier_run_is_not_taken_for_this_one(self, desk: Path, tmp_path: Path) -> None:
        target = desk / "target.safetensors"
        run("segment", desk / "video.mp4", "-t", target, "-o", tmp_path, bundle=desk / "bundle")
        assert (tmp_path / "overlay.mp4").exists()
        run("segment", desk / "folder", "-t", target, "-o", tmp_path, bundle=desk / "bundle")
        assert not (tmp_path / "overlay.mp4").exists()
        assert len(json.loads((tmp_path / "results.json").read_text())["frames"]) == 3

    def test_an_earlier_run_is_not_lost_to_one_that_cannot_begin(self, desk: Path, tmp_path: Path) -> None:
        target, out = desk / "target.safetensors", tmp_path / "out"
        run("segment", desk / "video.mp4", "-t", target, "-o", out, bundle=desk / "bundle")
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        (tmp_path / "cut.png").write_bytes((desk / "image.png").read_bytes()[:200])
        write_bundle(tmp_path / "other", shared=True, seed=1)
        refused(run("segment", tmp_path / "cut.png", "-t", target, "-o", out, bundle=desk / "bundle"), "cut.png")
        refused(run("segment", desk / "video.mp4", "-t", target, "-o", out, bundle=tmp_path / "nowhere"), "nowhere")
        refused(run("segment", desk / "video.mp4", "-t", target, "-o", out, bundle=tmp_path / "other"), "identify it")
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize("source", ["overlay.mp4", "masks", "masks/000000.png"])
    def test_refuses_to_write_over_its_input(self, desk: Path, tmp_path: Path, source: str) -> None:
        target = desk / "target.safetensors"
        run("segment", desk / "video.mp4", "-t", target, "-o", tmp_path, bundle=desk / "bundle")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        result = run("segment", tmp_path / source, "-t", target, "-o", tmp_path, bundle=desk / "bundle")
        refused(result, source, "would be written over")
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="SIGINT cannot be sent to one process here")
class TestInterrupted:
    def start(self, *arguments: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "samg_fast", *(str(argument) for argument in arguments)]
        # A runner in the background may have told its children to ignore Ctrl-C.
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def interrupt(self, process: subprocess.Popen[str], when: Path, pattern: str) -> str:
        """Press Ctrl-C once files have appeared, and return what was said on stderr."""
        try:
            deadline = time.monotonic() + 60
            while len(list(when.glob(pattern))) < 3 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            return process.communicate(timeout=60)[1]
        finally:
            process.kill()

    def test_segment_keeps_what_was_done(self, desk: Path, tmp_path: Path) -> None:
        write_video(tmp_path / "long.mp4", 2000, side=32)
        out = tmp_path / "out"
        (out / "masks").mkdir(parents=True)
        process = self.start(
            "segment", tmp_path / "long.mp4", "-t", desk / "target.safetensors", "-o", out,
            "--bundle", desk / "bundle", "--threads", 1,
        )  # fmt: skip
        said = self.interrupt(process, out / "masks", "[0-9]*.png")
        assert process.returncode == 130, said
        results = json.loads((out / "results.json").read_text())
        done = len(results["frames"])
        assert results["complete"] is False
        assert 3 <= done < 2000
        assert said.splitlines()[-1] == f"samg-fast: interrupted; kept the {done} frames that were done in {out}"
        assert "Traceback" not in said
        assert len(list((out / "masks").iterdir())) == done
        assert len(list(VideoReader(out / "overlay.mp4"))) == done


class TestDemo:
    def test_writes_what_it_says(self, desk: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        result = run(
            "demo", "--out", out, "--tasks", "walker_walk,cheetah_run", "--setting", "video_hard", "--frames", "2",
            "--json", tmp_path / "figures.json", bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert {task: list(settings) for task, settings in figures["tasks"].items()} == {
            "walker_walk": ["video_hard"],
            "cheetah_run": ["video_hard"],
        }
        assert len(list(VideoReader(out / "demo.mp4"))) == 4
        assert read_image(out / "contact_sheet.png").ndim == 3
        for word in ("walker_walk", "IoU", "p99", "frames/s", "similarity", "decodes"):
            assert word in result.stdout

    def test_json_to_stdout_is_nothing_but_json(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "demo", "--out", tmp_path, "--tasks", "walker_walk", "--frames", "1", "--json", "-",
            bundle=desk / "bundle",
        )  # fmt: skip
        assert list(json.loads(result.stdout)["tasks"]["walker_walk"]) == ["original", "video_easy", "video_hard"]
        assert "frames/s" in result.stderr

    def test_refuses_an_unknown_task(self, desk: Path, tmp_path: Path) -> None:
        result = run("demo", "--out", tmp_path, "--tasks", "walker_wlak", bundle=desk / "bundle")
        refused(result, "walker_wlak", "walker_walk")

    def test_refuses_an_output_folder_that_cannot_be(self, desk: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("kept")
        refused(run("demo", "--out", tmp_path / "file", bundle=desk / "bundle"), "cannot write into the folder")

    @needs_rendering
    def test_live(self, desk: Path, tmp_path: Path) -> None:
        result = run(
            "demo", "--out", tmp_path, "--live", "cartpole_swingup", "--setting", "video_hard", "--frames", "3",
            "--json", "-", bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert list(json.loads(result.stdout)["tasks"]) == ["cartpole_swingup"]
        assert len(list(VideoReader(tmp_path / "demo.mp4"))) == 3

    @pytest.fixture
    def interrupt(
        self, desk: Path, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[int, Path], Result]:
        """Press Ctrl-C within a call of `segment`, counted from 1."""
        segment, calls = samg_fast.Segmenter.segment, []

        def interrupted_at(at: int, out: Path) -> Result:
            def interrupted(*arguments: Any, **options: Any) -> samg_fast.Segmentation:
                calls.append(1)
                if len(calls) == at:
                    ctrl_c()
                return segment(*arguments, **options)

            monkeypatch.setattr(samg_fast.Segmenter, "segment", interrupted)
            return run("demo", "--out", out, "--json", out / "figures.json", bundle=desk / "bundle")

        return interrupted_at

    def test_interrupted_it_reports_what_was_done(
        self, interrupt: Callable[[int, Path], Result], tmp_path: Path
    ) -> None:
        result = interrupt(10, tmp_path)
        assert result.exit_code == 130
        done = len(list(VideoReader(tmp_path / "demo.mp4")))
        assert 0 < done < 10
        assert f"interrupted; kept the {done} of " in result.stderr
        assert list(json.loads((tmp_path / "figures.json").read_text())["tasks"]) == ["walker_walk"]

    def test_interrupted_before_the_first_frame(self, interrupt: Callable[[int, Path], Result], tmp_path: Path) -> None:
        result = interrupt(1, tmp_path)
        assert result.exit_code == 130
        assert result.stderr.splitlines()[-1].startswith("samg-fast: interrupted")
        assert list(tmp_path.iterdir()) == []

    def test_interrupted_while_drawing_it_keeps_the_figures(
        self, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("samg_fast.demo.pictures.write_video", interrupted)
        result = run(
            "demo", "--out", tmp_path, "--task", "walker_walk", "--frames", "1", "--json", tmp_path / "figures.json",
            bundle=desk / "bundle",
        )  # fmt: skip
        assert result.exit_code == 130
        assert list(json.loads((tmp_path / "figures.json").read_text())["tasks"]) == ["walker_walk"]
