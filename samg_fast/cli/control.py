"""``samg-fast control``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    BackendOption,
    BundleOption,
    CameraOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    check_one,
    check_shown,
    graceful_interrupt,
    open_segmenter,
    progress,
    say,
    show_table,
    write_json,
)

if TYPE_CHECKING:
    from samg_fast.checks import Frame
    from samg_fast.control import Controller, Report
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

_WARM_UP = 3  # networks are compiled for their shapes at the first frame, which must not count as a step


def _finite(value: float) -> float:
    """Reject infinity and NaN, which pass the option's range check."""
    if not isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def control(
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="A task of dm_control or an Adroit hand: needs OpenGL.")
    ] = None,
    camera: CameraOption = None,
    setting: Annotated[
        str, typer.Option(metavar="SETTING", help="original, color_easy, color_hard, video_easy or video_hard.")
    ] = "original",
    clips: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Videos for the video settings; procedural ones without it.")
    ] = None,
    colors: Annotated[
        Path | None, typer.Option(metavar="PATH", help="JSON file of colours for the colour settings; random without.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--target",
            "-t",
            metavar="FILE",
            help="What `samg-fast identify` wrote; by default it is identified on a clean image of the task. "
            "A fitted bundle needs none.",
        ),
    ] = None,
    hz: Annotated[float, typer.Option(min=0.1, callback=_finite, help="Control steps per second.")] = 40.0,
    seconds: Annotated[float, typer.Option(min=0.1, callback=_finite, help="How long.")] = 20.0,
    wait: Annotated[
        float, typer.Option(metavar="MS", min=0.0, help="Wait so long at most for the mask of a step's own frame.")
    ] = 0.0,
    size: Annotated[int, typer.Option(min=1, help="Side of a frame in pixels.")] = 84,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial state, the actions and the background.")] = 0,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Control a task at a fixed rate while perception runs on its own thread, and measure the timing.

    Every step simulates and renders the task with a random action; the newest mask gives the masked image. Prints the
    achieved rate, the age of the masks when they are used, missed deadlines, segmented and dropped frames, and CPU
    usage. If the run is interrupted, the measurements so far are printed. With --camera, every step takes the newest
    picture of a camera instead, and nothing is controlled; a camera that goes away is said and opened again.
    """
    from samg_fast.control import Controller
    from samg_fast.devices import machine
    from samg_fast.target import Target

    if wait > 1e3 / hz:
        raise typer.BadParameter(f"longer than a step, which takes {1e3 / hz:g} ms at {hz:g} Hz", param_hint="--wait")
    check_one(task, "--task", camera, "--camera")
    check_json(json)
    given = None if target is None else Target.load(target)
    seen = _Pictures(camera) if camera is not None else _Steps(str(task), setting, size, seed, clips, colors)
    with seen, open_segmenter(bundle, backend, precision, device, threads) as segmenter, graceful_interrupt() as stop:
        identified = given or seen.target(segmenter)
        for _ in range(_WARM_UP):
            segmenter.segment(seen.first, identified)
        with Controller(segmenter, identified, seen.frames(), hz=hz, wait=wait / 1e3) as controller:
            with progress("controlling", max(1, round(seconds * hz))) as advance:
                _run(controller, seconds, advance, stop)
            interrupted = stop()
        report = controller.report()
        _show(report, seen, segmenter, json)
        figures = {
            **seen.figures,
            "bundle": segmenter.bundle.name,
            "backend": segmenter.backend,
            "precision": segmenter.precision,
            "device": segmenter.device,
            "cores": machine.cores(),
            "complete": not interrupted,
        }
    write_json(json, figures | report.to_json())
    if interrupted:
        typer.echo(f"samg-fast: interrupted; this is of the {report.ticks} steps that were done", err=True)
        raise typer.Exit(INTERRUPTED)


class _Steps:
    """What a task shows: a step for every frame."""

    doing = "simulate and render"

    def __init__(self, task: str, setting: str, size: int, seed: int, clips: Path | None, colors: Path | None) -> None:
        from samg_fast.envs.dmc import LiveTask

        self._live = LiveTask(task, setting, size, seed, clips, colors, action_repeat=1)
        self.words = f"{task}, {setting}"
        self.figures: dict[str, Any] = {"task": task, "setting": setting, "size": size, "seed": seed}

    def __enter__(self) -> None:
        self.first = self._live.reset()  # fail early if rendering fails: opening a segmenter may take minutes

    def __exit__(self, *_: object) -> None:
        self._live.close()

    def target(self, segmenter: Segmenter) -> Target | None:
        return segmenter.target_for(*self._live.reference())

    def frames(self) -> Iterator[Frame | None]:
        return (self._live.step() for _ in count())


class _Pictures:
    """What a camera shows: its newest picture, or none where there is no new one."""

    doing = "take a picture"

    def __init__(self, camera: str) -> None:
        from samg_fast.media import Camera

        self._camera = Camera(camera)
        self.words = f"camera {camera}"
        self.figures: dict[str, Any] = {"camera": camera}

    def __enter__(self) -> None:
        first = self._camera.read()
        assert first is not None  # it would have raised
        self.first = first

    def __exit__(self, *_: object) -> None:
        self._camera.close()

    def target(self, segmenter: Segmenter) -> Target | None:
        check_shown(segmenter, None)
        return None

    def frames(self) -> Iterator[Frame | None]:
        return (self._camera.read(0.0) for _ in count())


def _run(controller: Controller, seconds: float, advance: Callable[[], None], stop: Callable[[], bool]) -> None:
    done = 0
    for tick in controller.ticks(seconds):
        if tick.observation is not None:
            _ = tick.observation.segmentation.masked  # the input of a policy
        while done <= tick.number:
            advance()
            done += 1
        if stop():
            break


def _show(report: Report, seen: _Steps | _Pictures, segmenter: Segmenter, json: Path | None) -> None:
    from samg_fast.devices import machine

    height, width = seen.first.shape[:2]
    say(f"{seen.words}, {height}×{width}: {segmenter.describe()}\n", json_to=json)
    frames = report.frames
    rows = [
        ("rate", "-" if report.rate is None else f"{report.rate:.2f} Hz of {report.hz:g}"),
        ("deadlines", f"{report.met} met, {report.missed} missed"),
        ("age of the mask", _list(report.ages) or "no mask was ready"),
        (seen.doing, _list(report.source)),
        ("steps", f"{report.ticks}, of them {report.blind} before the first mask"),
        ("frames", f"{frames.seen} seen, {frames.segmented} segmented, {frames.dropped} dropped"),
        ("processor", "-" if report.cpu is None else f"{report.cpu:.2f} of {machine.cores()} cores"),
    ]
    show_table(("", ""), rows, json_to=json)


def _list(milliseconds: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in milliseconds.items()) + " ms" if milliseconds else ""
