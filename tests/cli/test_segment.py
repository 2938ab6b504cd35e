"""What `samg-fast segment` makes of moving pictures: times, names, what is left out and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import samg_fast
from samg_fast.cli import app
from samg_fast.media import VideoReader, read_mask, write_image
from support.camera_server import CameraServer
from support.synthetic_bundle import picture, write_bundle
from support.videos import (
    OPEN_GROUPS,
    cut_within_groups,
    moving_pictures,
    turn,
    write_grey,
    write_growing,
    write_timed,
)

UNEVEN = [0.0, 0.04, 0.08, 0.5, 0.54, 1.0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    (desk / "bundle").mkdir()
    write_bundle(desk / "bundle", shared=True)
    with samg_fast.load(desk / "bundle", threads=1) as segmenter:
        segmenter.identify(*picture(84, 84)).save(desk / "target.safetensors")
    return desk


@pytest.fixture
def segment(desk: Path) -> Callable[..., Result]:
    """Return a function that runs `samg-fast segment SOURCE -o OUT`."""

    def run(source: Any, out: Any, *options: Any) -> Result:
        given = ["segment", source, "-t", desk / "target.safetensors", "-o", out, "--bundle", desk / "bundle"]
        return CliRunner().invoke(app, [str(each) for each in (*given, "--threads", 1, *options)])

    return run


def results_in(out: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_keep_their_times(segment: Callable[..., Result], tmp_path: Path, suffix: str) -> None:
    video, out = tmp_path / f"a.{suffix}", tmp_path / "out"
    write_timed(video, moving_pictures(6), [30 + time for time in UNEVEN], last=2)
    result = segment(video, out)
    assert result.exit_code == 0, result.output
    results = results_in(out)
    assert (results["complete"], results["left_out"]) == (True, 0)
    assert results["start"] == pytest.approx(30, abs=1e-3)
    assert [frame["time"] for frame in results["frames"]] == pytest.approx(UNEVEN, abs=2e-3)
    shown = list(VideoReader(out / "overlay.mp4").timed())
    assert [frame.time for frame in shown] == pytest.approx(UNEVEN, abs=2e-3)
    assert shown[-1].duration == pytest.approx(2, abs=2e-3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_a_video(segment: Callable[..., Result], tmp_path: Path, suffix: str) -> None:
    first, *others = map(Image.fromarray, moving_pictures(4))
    durations = [40, 40, 400, 2000]
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, duration=durations)
    result = segment(tmp_path / f"a.{suffix}", tmp_path / "out")
    assert result.exit_code == 0, result.output
    results = results_in(tmp_path / "out")
    assert [frame["time"] for frame in results["frames"]] == pytest.approx([0, 0.04, 0.08, 0.48])
    assert len(list(VideoReader(tmp_path / "out" / "overlay.mp4"))) == 4


def test_a_turned_video_has_turned_masks(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_timed(tmp_path / "a.mp4", moving_pictures(2, 48, 64), [0, 0.04])
    turn(tmp_path / "a.mp4", (0, 1), (-1, 0))
    assert segment(tmp_path / "a.mp4", tmp_path / "out").exit_code == 0
    assert read_mask(tmp_path / "out" / "masks" / "000000.png").shape == (64, 48)


def test_a_video_cut_within_a_group(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_timed(tmp_path / "whole.mkv", moving_pictures(48), [each / 25 for each in range(48)], x264=OPEN_GROUPS)
    copied = cut_within_groups(tmp_path / "whole.mkv", tmp_path / "cut.mkv")
    result = segment(tmp_path / "cut.mkv", tmp_path / "out")
    assert result.exit_code == 0, result.output
    results = results_in(tmp_path / "out")
    assert results["complete"] is True
    assert results["left_out"] > 0
    assert len(results["frames"]) == copied - results["left_out"]
    (line,) = [line for line in result.stderr.splitlines() if "cut.mkv" in line]
    assert line.startswith("samg-fast: ")
    assert "left out" in line


def test_a_truncated_video_keeps_what_could_be_read(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_timed(tmp_path / "a.mkv", moving_pictures(30), [30 + each / 25 for each in range(30)])
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data[: len(data) * 6 // 10])
    result = segment(tmp_path / "a.mkv", tmp_path / "out")
    assert result.exit_code == 1
    assert "cut short" in result.stderr.splitlines()[-1]
    assert results_in(tmp_path / "out")["complete"] is False
    assert len(results_in(tmp_path / "out")["frames"]) > 5


def test_a_size_that_changes_names_the_frame_and_both(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_growing(tmp_path / "a.ts", [(48, 64), (96, 80)])
    result = segment(tmp_path / "a.ts", tmp_path / "out")
    assert result.exit_code == 1
    assert "frame 3 of" in result.stderr
    assert "80x96 pixels where those before are 64x48" in result.stderr
    assert len(results_in(tmp_path / "out")["frames"]) == 3


def test_a_grey_video_is_refused_before_the_work(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_grey(tmp_path / "a.mkv")
    result = segment(tmp_path / "a.mkv", tmp_path / "out")
    assert result.exit_code == 1
    assert "it is a grey video" in result.stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_names_with_a_colon(segment: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_timed(tmp_path / "12:30:05.mp4", moving_pictures(3), [0, 0.04, 0.08])
    result = segment("12:30:05.mp4", "10:30")
    assert result.exit_code == 0, result.output
    assert len(list(VideoReader("10:30/overlay.mp4"))) == 3
    assert results_in(Path("10:30"))["input"] == "12:30:05.mp4"


@pytest.mark.skipif(os.name != "posix", reason="names are no bytes here")
class TestNamesThatAreNoText:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / os.fsdecode(b"fr\xe9")
        folder.mkdir()
        for name in (b"a.png", b"caf\xe9.png"):
            write_image(folder / os.fsdecode(name), picture(60, 90)[0])
        (folder / "._a.png").write_bytes(b"what macOS keeps beside it")
        return folder

    def test_lose_nothing(self, segment: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
        out = tmp_path / os.fsdecode(b"out\xff")
        result = segment(folder, out, "--json", tmp_path / "figures.json")
        assert result.exit_code == 0, result.output
        results = results_in(out)
        assert [os.fsencode(frame["name"]) for frame in results["frames"]] == [b"a", b"caf\xe9"]
        assert all((out / frame["mask"]).is_file() for frame in results["frames"])
        assert b"caf\\udce9" in (out / "results.json").read_bytes()
        assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == results

    def test_are_printed(self, segment: Callable[..., Result], folder: Path, tmp_path: Path) -> None:
        result = segment(folder, tmp_path / "out", "--json", "-")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == results_in(tmp_path / "out")

    def test_of_videos(self, segment: Callable[..., Result], tmp_path: Path) -> None:
        video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
        write_timed(tmp_path / "a.mp4", moving_pictures(3), [0, 0.04, 0.08])
        (tmp_path / "a.mp4").rename(video)
        result = segment(video, tmp_path / "out")
        assert result.exit_code == 0, result.output
        assert os.fsencode(results_in(tmp_path / "out")["input"]) == os.fsencode(video)
        video.write_bytes(b"no video")
        result = segment(video, tmp_path / "out")
        assert result.exit_code == 1
        assert "it is not a video" in result.stderr


def test_pictures_have_no_time(segment: Callable[..., Result], tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.asarray(picture(60, 90)[0]))
    assert segment(tmp_path / "a.png", tmp_path / "out").exit_code == 0
    results = results_in(tmp_path / "out")
    assert "time" not in results["frames"][0]
    assert "start" not in results


class TestObjects:
    """Several targets, formats, backgrounds."""

    @pytest.fixture
    def two(self, desk: Path) -> tuple[str, ...]:
        with samg_fast.load(desk / "bundle", threads=1) as segmenter:
            segmenter.identify(*picture(84, 84, 5)).save(desk / "other.safetensors")
        return "-t", f"second={desk / 'other.safetensors'}"

    @pytest.fixture
    def video(self, tmp_path: Path) -> Path:
        write_timed(tmp_path / "v.mp4", moving_pictures(3), [0.0, 0.04, 0.08])
        return tmp_path / "v.mp4"

    def test_each_has_its_masks_and_figures(
        self, segment: Callable[..., Result], desk: Path, tmp_path: Path, two: tuple[str, ...], video: Path
    ) -> None:
        out = tmp_path / "out"
        result = segment(video, out, *two, "--format", "png,davis,coco,npz,yolo,composite", "--background", "#102030")
        assert result.exit_code == 0, result.output
        results = results_in(out)
        with samg_fast.load(desk / "bundle", threads=1) as segmenter:
            names = {"target": desk / "target.safetensors", "second": desk / "other.safetensors"}
            targets = {name: samg_fast.Target.load(path) for name, path in names.items()}
            for entry, frame in zip(results["frames"], VideoReader(video), strict=True):
                expected = segmenter.segment(frame, targets)
                assert list(entry["objects"]) == ["target", "second"]
                for name, each in entry["objects"].items():
                    np.testing.assert_array_equal(read_mask(out / each["mask"]), expected[name].mask)
                    assert each["area"] == expected[name].mask.sum()
                with Image.open(out / "davis" / f"{entry['name']}.png") as ids:
                    np.testing.assert_array_equal(np.asarray(ids), expected.ids)
        made = {path.name for path in out.iterdir()}
        assert made == {
            "masks", "davis", "coco.json", "masks.npz", "yolo", "composite.mp4", "overlay.mp4", "results.json"
        }  # fmt: skip
        assert results["summary"]["empty_masks"] == sum(
            each["area"] == 0 for entry in results["frames"] for each in entry["objects"].values()
        )

    def test_without_png_there_are_no_masks(self, segment: Callable[..., Result], tmp_path: Path, video: Path) -> None:
        assert segment(video, tmp_path / "out", "--format", "alpha").exit_code == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "alpha.webm", "overlay.mp4", "results.json"
        ]  # fmt: skip
        assert "mask" not in results_in(tmp_path / "out")["frames"][0]

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            (
                ("--format", "tiff"),
                1,
                "format must be some of png, davis, coco, coco-polygons, npz, yolo, alpha, composite",
            ),
            (("--background", "none.png"), 1, "'none.png' is none: there is no such file"),
            (("--camera", "0"), 2, "or --camera must be given, and not both"),
            (("-t", "target=missing.safetensors"), 2, "two objects are called target: tell them apart with -t NAME"),
            (("-t", "a/b=missing.safetensors"), 2, "does not name an object in a way that is fit for a file"),
        ],
    )
    def test_what_is_refused(
        self, segment: Callable[..., Result], tmp_path: Path, video: Path, options: Any, code: int, words: str
    ) -> None:
        result = segment(video, tmp_path / "out", *options)
        assert result.exit_code == code
        assert words in " ".join(result.stderr.split())
        assert not (tmp_path / "out" / "results.json").exists()

    def test_several_objects_in_an_alpha_video(
        self, segment: Callable[..., Result], tmp_path: Path, two: tuple[str, ...], video: Path
    ) -> None:
        result = segment(video, tmp_path / "out", *two, "--format", "alpha")
        assert result.exit_code == 1
        assert "format alpha shows one object, not 2" in result.stderr

    def test_a_target_of_another_bundle(self, segment: Callable[..., Result], tmp_path: Path, video: Path) -> None:
        with samg_fast.load("tiny", threads=1) as tiny:
            tiny.identify(*picture(84, 84)).save(tmp_path / "tiny.safetensors")
        result = segment(video, tmp_path / "out", "-t", tmp_path / "tiny.safetensors")
        assert result.exit_code == 1
        assert "target tiny was made with bundle tiny" in result.stderr

    def test_a_camera(self, desk: Path, tmp_path: Path) -> None:
        server = CameraServer()
        try:
            options = ["-t", desk / "target.safetensors", "--bundle", desk / "bundle", "--threads", 1]
            words = ["segment", "--camera", server.address, "--seconds", 2, "-o", tmp_path / "out", *options]
            result = CliRunner().invoke(app, [str(each) for each in words])
        finally:
            server.close()
        assert result.exit_code == 0, result.output
        results = results_in(tmp_path / "out")
        assert results["input"] == server.address
        assert results["complete"]
        times = [entry["time"] for entry in results["frames"]]
        assert times == sorted(times)
        assert len(times) >= 1
        assert (tmp_path / "out" / "overlay.mp4").exists()
