"""``samg-fast control``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    Backend,
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    graceful_interrupt,
    open_segmenter,
    progress,
    say,
    show_table,
    write_json,
)

if TYPE_CHECKING:
    from samg_fast.control import Controller, Report
    from samg_fast.envs.dmc import LiveTask
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

_WARM_UP = 3  # networks are compiled for their shapes at the first frame; that is no tick's time


def control(
    task: Annotated[str, typer.Option(metavar="TASK", help="A task of dm_control or an Adroit hand: needs OpenGL.")],
    setting: Annotated[
        str, typer.Option(metavar="SETTING", help="original, color_easy, color_hard, video_easy or video_hard.")
    ] = "original",
    hz: Annotated[float, typer.Option(min=0.1, help="Control steps per second.")] = 40.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 20.0,
    wait: Annotated[
        float, typer.Option(metavar="MS", min=0.0, help="Wait so long at most for the mask of a step's own frame.")
    ] = 0.0,
    size: Annotated[int, typer.Option(min=1, help="Side of a frame in pixels.")] = 84,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial state, the actions and the background.")] = 0,
    bundle: BundleOption = "tiny",
    backend: BackendOption = Backend.auto,
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Control a task at a fixed rate while perception runs on a thread of its own, and measure how that goes.

    With every step the task is simulated, rendered and given a random action; the newest mask there is makes the masked
    picture. Prints the achieved rate, the age of the mask when it is used, missed deadlines, what became of the frames
    and the processor's use. If the run is interrupted, what was measured until then is printed.
    """
    from samg_fast.control import Controller
    from samg_fast.envs import find_task
    from samg_fast.envs.dmc import LiveTask
    from samg_fast.envs.settings import check_setting

    if wait > 1e3 / hz:
        raise typer.BadParameter(f"longer than a step, which takes {1e3 / hz:g} ms at {hz:g} Hz", param_hint="--wait")
    check_json(json)
    found, setting = find_task(task), check_setting(setting)  # opening a segmenter may take minutes
    with (
        open_segmenter(bundle, backend, precision, device, threads) as segmenter,
        LiveTask(found, setting, size, seed, action_repeat=1) as live,
        graceful_interrupt() as stop,
    ):
        target = _prepare(segmenter, live)
        steps = (live.step() for _ in count())
        with Controller(segmenter, target, steps, hz=hz, wait=wait / 1e3) as controller:
            with progress("controlling", round(seconds * hz)) as advance:
                _run(controller, seconds, advance, stop)
            interrupted = stop()
        report = controller.report()
        _show(report, f"{task}, {setting}, {size}×{size}: {segmenter.describe()}", json)
        figures = {
            "task": task,
            "setting": setting,
            "size": size,
            "seed": seed,
            "bundle": segmenter.bundle.name,
            "backend": segmenter.backend,
            "precision": segmenter.precision,
            "device": segmenter.device,
            "complete": not interrupted,
        }
    write_json(json, figures | report.to_json())
    if interrupted:
        typer.echo(f"samg-fast: interrupted; this is of the {report.ticks} steps that were done", err=True)
        raise typer.Exit(INTERRUPTED)


def _prepare(segmenter: Segmenter, live: LiveTask) -> Target:
    """Learn the target on a clean picture, and let everything run once."""
    image, mask = live.reference()
    target = segmenter.identify(image, mask)
    frame = live.reset()
    for _ in range(_WARM_UP):
        segmenter.segment(frame, target)
    return target


def _run(controller: Controller, seconds: float, advance: Callable[[], None], stop: Callable[[], bool]) -> None:
    done = 0
    for tick in controller.ticks(seconds):
        if tick.observation is not None:
            _ = tick.observation.segmentation.masked  # what a policy would see
        while done <= tick.number:
            advance()
            done += 1
        if stop():
            break


def _show(report: Report, what: str, json: Path | None) -> None:
    from samg_fast import machine

    say(f"{what}\n", json_to=json)
    ages = "no mask was ready" if report.ages is None else _list(report.ages, " {:.1f}") + " ms"
    frames = report.frames
    rows = [
        ("rate", "-" if report.rate is None else f"{report.rate:.2f} Hz of {report.hz:g}"),
        ("deadlines", f"{report.met} met, {report.missed} missed"),
        ("age of the mask", ages),
        ("steps", f"{report.ticks}, of them {report.blind} before the first mask"),
        ("frames", f"{frames.seen} seen, {frames.segmented} segmented, {frames.dropped} dropped"),
        ("processor", "-" if report.cpu is None else f"{report.cpu:.2f} of {machine.cores()} cores"),
    ]
    show_table(("", ""), rows, json_to=json)


def _list(figures: dict[str, float], form: str) -> str:
    return ", ".join(name + form.format(value) for name, value in figures.items())
