"""``samg-fast control``: its output, its errors, and interruptions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import samg_fast
from samg_fast.cli import app
from samg_fast.errors import BackendError, RenderingError
from samg_fast.samples import load_pack
from support.camera_server import CameraServer
from support.rendering import needs_rendering
from support.synthetic_bundle import picture

TASK = "cartpole_swingup"


@pytest.fixture
def run(bundle_folder: Path) -> Callable[..., Result]:
    """Run the command on a synthetic bundle."""

    def run(*arguments: Any, task: str = TASK) -> Result:
        options = ("--task", task, "--bundle", bundle_folder, "--threads", 1, *arguments)
        return CliRunner().invoke(app, ["control", *(str(option) for option in options)])

    return run


def refused(result: Result, *words: str) -> None:
    """Assert that the command failed with one line that contains some words."""
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("samg-fast: ")
    assert all(word in line for word in words), line
    assert "Traceback" not in result.output


@needs_rendering
class TestRuns:
    def test_prints_and_writes_what_it_measured(self, run: Callable[..., Result], tmp_path: Path) -> None:
        out = tmp_path / "figures.json"
        result = run("--setting", "video_hard", "--hz", 10, "--seconds", 1, "--size", 32, "--wait", 90, "--json", out)
        assert result.exit_code == 0, result.output
        figures = json.loads(out.read_text())
        asked = {"task": TASK, "setting": "video_hard", "size": 32, "seed": 0, "hz": 10.0, "complete": True}
        assert figures == {**figures, **asked, "bundle": "synthetic", "device": "cpu"}
        frames, deadlines = figures["frames"], figures["deadlines"]
        assert deadlines["met"] + deadlines["missed"] >= 10
        assert frames["seen"] == figures["ticks"] <= 10
        assert frames["seen"] == frames["segmented"] + frames["dropped"]
        assert frames["pending"] == 0
        assert figures["achieved_hz"] > 0
        assert 0 < figures["age_ms"]["p50"] <= figures["age_ms"]["p95"] <= figures["age_ms"]["max"]
        assert figures["cpu_cores"] > 0
        assert 0 < figures["source_ms"]["p50"] <= figures["source_ms"]["max"]
        assert figures["cores"] >= 1
        for words in ("Hz of 10", f"{deadlines['met']} met, {deadlines['missed']} missed", "p99", "dropped", "cores"):
            assert words in result.stdout

    def test_json_to_stdout_is_nothing_but_json(self, run: Callable[..., Result]) -> None:
        result = run("--hz", 20, "--seconds", 0.2, "--size", 32, "--json", "-")
        assert json.loads(result.stdout)["setting"] == "original"
        assert "Hz of 20" in result.stderr

    def test_interrupted_it_prints_what_was_measured(
        self, run: Callable[..., Result], tmp_path: Path, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from samg_fast.envs.dmc import LiveTask

        step, calls = LiveTask.step, []

        def interrupted(live: LiveTask) -> Any:
            calls.append(1)
            if len(calls) == 3:
                ctrl_c()
            return step(live)

        monkeypatch.setattr(LiveTask, "step", interrupted)
        result = run("--hz", 20, "--seconds", 60, "--size", 32, "--json", tmp_path / "figures.json")
        assert result.exit_code == 130
        assert result.stderr.splitlines()[-1] == "samg-fast: interrupted; this is of the 3 steps that were done"
        assert "Hz of 20" in result.stdout
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert (figures["complete"], figures["ticks"]) == (False, 3)

    def test_takes_a_target(self, run: Callable[..., Result], bundle_folder: Path, tmp_path: Path) -> None:
        with samg_fast.load(bundle_folder, threads=1) as segmenter:
            image, mask = picture(32, 32)
            segmenter.identify(image, mask).save(tmp_path / "own.safetensors")
        common = ("--seconds", 0.2, "--size", 32)
        result = run(*common, "--target", tmp_path / "own.safetensors")
        assert result.exit_code == 0, result.output
        walker = load_pack().tasks["walker_walk"]
        with samg_fast.load("tiny", threads=1) as segmenter:
            segmenter.identify(walker.reference, walker.reference_mask).save(tmp_path / "other.safetensors")
        refused(run(*common, "--target", tmp_path / "other.safetensors"), "target was made with bundle tiny")

    def test_failures_on_the_thread_are_reported(
        self, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segment = samg_fast.Segmenter.segment

        def failing(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                raise BackendError("the network is gone")
            return segment(*arguments, **options)

        monkeypatch.setattr(samg_fast.Segmenter, "segment", failing)
        refused(run("--seconds", 5, "--size", 32), "segmenting frame 0 failed: BackendError: the network is gone")
        assert not any(each.name == "samg-fast perception" for each in threading.enumerate())


class TestRefuses:
    def test_a_machine_that_cannot_render_before_anything_is_opened(
        self, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_renderer(*_: Any, **__: Any) -> Any:
            raise RenderingError("off-screen rendering cannot start; on Debian install libegl1")

        def opened(*_: Any, **__: Any) -> Any:
            raise AssertionError("a segmenter was opened")

        monkeypatch.setattr("samg_fast.envs.dmc.LiveTask.look", no_renderer)
        monkeypatch.setattr("samg_fast.load", opened)
        refused(run(), "off-screen rendering cannot start; on Debian install libegl1")

    def test_invalid_bundle(self, run: Callable[..., Result]) -> None:
        refused(run("--bundle", "tinny"), "tinny")

    def test_invalid_target(self, run: Callable[..., Result], tmp_path: Path) -> None:
        refused(run("--target", tmp_path / "missing.safetensors"), "missing.safetensors")

    def test_an_unknown_task(self, run: Callable[..., Result]) -> None:
        refused(run(task="walker_wlak"), "no task 'walker_wlak'", "walker_walk")

    def test_an_unknown_setting(self, run: Callable[..., Result]) -> None:
        refused(run("--setting", "video_hadr"), "no setting 'video_hadr'", "video_hard")

    def test_a_folder_without_clips(self, run: Callable[..., Result], tmp_path: Path) -> None:
        refused(run("--setting", "video_easy", "--clips", tmp_path), "clips: no video file")

    def test_invalid_colours(self, run: Callable[..., Result], tmp_path: Path) -> None:
        (tmp_path / "colors.json").write_text('[{"self_rgb": [0, 0, 255]}]')
        refused(run("--setting", "color_easy", "--colors", tmp_path / "colors.json"), "entry 0", "self_rgb must be")
        refused(run("--setting", "color_easy", "--colors", tmp_path), "cannot read the colours", "color_easy.pt")

    def test_output_that_cannot_be_written(self, run: Callable[..., Result], tmp_path: Path) -> None:
        refused(run("--json", tmp_path / "missing" / "figures.json"), "cannot write")

    def test_a_wait_longer_than_a_step(self, run: Callable[..., Result]) -> None:
        result = run("--hz", 20, "--wait", 60)
        assert result.exit_code == 2
        assert "longer than a step, which takes 50 ms at 20 Hz" in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--hz", 0),
            ("--hz", "nan"),
            ("--hz", "inf"),
            ("--hz", "fast"),
            ("--seconds", 0),
            ("--seconds", "nan"),
            ("--seconds", "inf"),
            ("--wait", -1),
            ("--wait", "nan"),
            ("--size", 0),
            ("--seed", -1),
            ("extra",),
        ],
    )
    def test_bad_usage(self, run: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr

    def test_no_task(self) -> None:
        result = CliRunner().invoke(app, ["control"])
        assert result.exit_code == 2
        assert "--task" in result.stderr


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(app, ["control", "--help"])
    assert result.exit_code == 0
    assert "Example:\n    samg-fast control" in result.stdout
    assert "--json" in result.stdout


class TestCamera:
    def run(self, *options: object) -> Result:
        return CliRunner().invoke(app, ["control", *(str(option) for option in options)])

    def test_its_newest_picture_is_segmented(self, bundle_folder: Path, tmp_path: Path) -> None:
        with samg_fast.load(bundle_folder, threads=1) as segmenter:
            segmenter.identify(*picture(48, 64)).save(tmp_path / "t.safetensors")
        server, out = CameraServer(), tmp_path / "figures.json"
        try:
            options = ("--bundle", bundle_folder, "--threads", 1, "--hz", 10, "--seconds", 1, "--json", out)
            result = self.run("--camera", server.address, "-t", tmp_path / "t.safetensors", *options)
        finally:
            server.close()
        assert result.exit_code == 0, result.output
        figures = json.loads(out.read_text())
        assert figures["camera"] == server.address
        assert figures["ticks"] > 0
        assert "take a picture" in result.stdout

    def test_what_is_refused(self, bundle_folder: Path) -> None:
        result = self.run("--camera", "97", "--bundle", bundle_folder)
        assert "cannot open camera 97: No such file or directory" in result.stderr
        for options in ((), ("--camera", "0", "--task", TASK)):
            result = self.run(*options)
            assert result.exit_code == 2
            assert "or --camera must be given, and not both" in " ".join(result.stderr.split())
        server = CameraServer()
        try:
            result = self.run("--camera", server.address, "--bundle", bundle_folder)
        finally:
            server.close()
        assert result.exit_code == 2
        assert "must be shown what to cut out" in " ".join(result.stderr.split())
