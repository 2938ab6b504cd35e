"""``samg-fast demo``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    BackendOption,
    BackgroundOption,
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
from samg_fast.errors import InputError

if TYPE_CHECKING:
    from samg_fast.demo.run import Report, Shot

_LIVE_FRAMES = 200


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for demo.mp4 and contact_sheet.png.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "--task", metavar="TASK,…", help="Tasks of the pack; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--settings", "--setting", metavar="SETTING,…", help="original, video_easy, video_hard, …"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help=f"Frames of each episode. Default: all of the pack, {_LIVE_FRAMES} live.")
    ] = None,
    live: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="Run this dm_control task instead of the frames that ship: needs OpenGL."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a live episode.")] = 0,
    background: BackgroundOption = "black",
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.fp32,  # the same figures on every processor
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Cut targets out of moving videos, with the accuracy and the time of every stage.

    Every target is identified on one clean image. The frames and their ground truth ship with the package, so that
    neither a display nor OpenGL is needed.
    """
    from samg_fast.background import Backgrounds
    from samg_fast.demo import pictures as demo_pictures
    from samg_fast.demo import run as demonstration
    from samg_fast.files import output_folder
    from samg_fast.media import write_image

    if live is not None and tasks:
        raise typer.BadParameter("--live names its task itself", param_hint="--tasks")
    folder = output_folder(out)
    check_json(json)
    Backgrounds(background)  # before anything is segmented
    with open_segmenter(bundle, backend, precision, device, threads) as segmenter:
        if live is None:
            from samg_fast.samples import load_pack

            pack, chosen = load_pack(), _names(tasks)
            if not segmenter.needs_target and not chosen and segmenter.bundle.name in pack.tasks:
                chosen = [segmenter.bundle.name]  # what it is fitted to
            episodes = demonstration.pack_episodes(pack, chosen, _names(settings), frames)
        else:
            count = frames or _LIVE_FRAMES
            shown = _names(settings) or ["video_hard"]
            episodes = [demonstration.live_episode(live, each, count, seed=seed) for each in shown]
        total = sum(episode.count for episode in episodes)
        with graceful_interrupt() as stop:
            try:
                with progress("segmenting", total) as advance:
                    report = demonstration.run(segmenter, episodes, advance=advance, stop=stop)
            except InputError:
                if stop():  # interrupted before the first frame: that is why there are none
                    raise KeyboardInterrupt from None
                raise
            interrupted = stop()
        _show(report, json)
        write_json(json, report.to_json())  # before the images, so that interrupting those does not lose the figures
        with progress("writing the video", len(report.shots)) as advance:
            demo_pictures.write_video(report, folder / "demo.mp4", background=background, advance=advance)
        write_image(folder / "contact_sheet.png", demo_pictures.contact_sheet(segmenter, report))
    say(f"wrote {folder / 'demo.mp4'} and {folder / 'contact_sheet.png'}", json_to=json)
    if interrupted:
        typer.echo(f"samg-fast: interrupted; kept the {len(report.shots)} of {total} frames that were done", err=True)
        raise typer.Exit(INTERRUPTED)


def _names(values: list[str] | None) -> list[str]:
    """Split values at commas; the option may also be repeated."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def _show(report: Report, json: Path | None) -> None:
    """Print accuracy and times per task and setting, then the time of each stage."""
    from samg_fast.demo import run as demonstration

    say(f"{report.bundle} on {report.backend} {report.precision}, {report.device}\n", json_to=json)

    def row(task: str, setting: str, shots: Sequence[Shot], iou: float, iou_min: float) -> list[str]:
        times = [f"{ms:.1f}" for ms in demonstration.frame_times(shots).values()]
        rate = 1e3 * len(shots) / sum(shot.ms for shot in shots)
        return [task, setting, str(len(shots)), f"{iou:.3f}", f"{iou_min:.3f}", *times, f"{rate:.0f}"]

    rows = [row(run.task, run.setting, run.shots, run.iou, run.iou_min) for run in report.runs]
    rows.append(row("all", "", report.shots, report.mean_iou, min(run.iou_min for run in report.runs)))
    headings = ("task", "setting", "frames", "IoU mean", "worst", "ms p50", "p95", "p99", "frames/s")
    show_table(headings, rows, numbers=7, json_to=json)

    known = list(demonstration.stage_medians(report.shots))
    if known:
        say("\nms per stage (median)", json_to=json)
        stages = [
            [task, *(f"{ms:.2f}" for ms in demonstration.stage_medians([s for r in runs for s in r.shots]).values())]
            for task, runs in report.by_task().items()
        ]
        show_table(("task", *known), stages, numbers=len(known), json_to=json)
    say("", json_to=json)
