"""``samg-fast fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samg_fast.cli.common import (
    INTERRUPTED,
    BackendOption,
    BundleOption,
    DeviceOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    check_json,
    extra,
    graceful_interrupt,
    open_segmenter,
    progress_bar,
    say,
    write_json,
)

if TYPE_CHECKING:
    from samg_fast.fitting.sources import Policy

__all__ = ["fit"]


def fit(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the bundle.")],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TARGET]",
            help="What `samg-fast identify` wrote; with --env it may be left out, and is then identified on a clean "
            "image of the task.",
        ),
    ] = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="DIR|VIDEO", help="Frames that show the target: images or a video.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="TASK", help="Record frames of a task instead: needs OpenGL.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Frames to record of --env.")] = 600,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Gives an action for a frame of --env; by default smooth random actions."
        ),
    ] = None,
    truth: Annotated[bool, typer.Option(help="Take the ground truth of --env as labels.")] = False,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masks of --frames, of the same names, as labels.")
    ] = None,
    backgrounds: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Images and videos to put behind the target; subfolders count; repeat for several."
        ),
    ] = None,
    without: Annotated[str, typer.Option(metavar="NAME,…", help="Videos of --backgrounds that are not opened.")] = "",
    more: Annotated[bool, typer.Option(help="Go on from the bundle in --out with new frames.")] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Fewer steps, if labelling and training take longer.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 3000,
    size: Annotated[int, typer.Option(min=32, help="Side of the frames of --env in pixels.")] = 84,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    bundle: BundleOption = "tiny",
    backend: BackendOption = "auto",
    precision: PrecisionOption = Precision.auto,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = None,
) -> None:
    """Fit a small network to one target: faster than the bundle that teaches it, and surer.

    The teacher, --bundle, labels the frames; those on which it is not sure are dropped. The network learns the target
    before other backgrounds, in other light and colours. DIR becomes a bundle that needs no target, with report.html.
    The same command resumes a run that was interrupted.
    """
    with extra("fitting", "fit"):
        from samg_fast.fitting.run import check_folder
        from samg_fast.fitting.run import fit as run
        from samg_fast.fitting.sources import masks_of, read_backgrounds, record
    import samg_fast
    from samg_fast.media import frames_in
    from samg_fast.target import Target

    if (frames is None) == (env is None):
        raise typer.BadParameter("frames come from --frames or from --env, one of them", param_hint="--frames")
    if env is None and (truth or policy):
        raise typer.BadParameter("it is for --env", param_hint="--truth" if truth else "--policy")
    if frames is None and masks is not None:
        raise typer.BadParameter("it is for --frames; --env has --truth", param_hint="--masks")
    if frames is not None and target is None and masks is None:
        raise typer.BadParameter("one of them must say what the target is", param_hint="TARGET or --masks")
    check_json(json)
    check_folder(out, more=more)
    known = None if target is None else Target.load(target)
    unread = [name for name in without.split(",") if name]
    behind = [clip for folder in backgrounds or () for clip in read_backgrounds(folder, without=unread)]
    with graceful_interrupt() as stop, progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        if env is not None:
            settings = ("original", "color_hard") if truth else ("original",)
            images, truths = record(
                env, count, settings=settings, size=size, seed=seed, policy=_policy(policy),
                advance=_counter(progress, "recording", count),
            )  # fmt: skip
            given = truths if truth else None
        else:
            assert frames is not None
            named = list(frames_in(frames))
            images = [image for _, image in named]
            given = None if masks is None else masks_of(masks, [name for name, _ in named])
        teacher = None
        if given is None or known is not None:
            teacher = open_segmenter(bundle, backend, precision, device, threads)
            if known is None and env is not None:
                from samg_fast.envs.dmc import reference

                known = teacher.target_for(*reference(env, size, seed))
        try:
            report = run(
                teacher, known, images, out, masks=given, backgrounds=behind, minutes=minutes, steps=steps, seed=seed,
                more=more, progress=progress, stop=stop,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo(f"samg-fast: interrupted; the same command goes on from {out / 'training'}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        finally:
            if teacher is not None:
                teacher.close()
    beside = (
        "" if report.teacher_iou is None else f" (its teacher {report.teacher_iou:.3f}, {report.teacher_ms:.2f} ms)"
    )
    say(
        f"{report.folder}: IoU {report.iou:.3f} with held-out labels, {report.ms:.2f} ms a frame{beside}; of "
        f"{report.given} frames {report.labelled} were used, {report.steps} steps took {report.seconds / 60:.1f} min",
        json_to=json,
    )
    say(f"see {report.folder / 'report.html'}; samg_fast.load({str(report.folder)!r}) needs no target", json_to=json)
    write_json(json, {"samg_fast": samg_fast.__version__, **report.to_json()})


def _counter(progress: Any, what: str, total: int) -> Any:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    return advance


def _policy(name: str | None) -> Policy | None:
    """Import a policy by MODULE:FUNCTION; modules of the current folder count."""
    if name is None:
        return None
    import importlib
    import sys

    module, colon, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{name} cannot be imported: {error}", param_hint="--policy") from None
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise typer.BadParameter(f"{name} is no MODULE:FUNCTION", param_hint="--policy")
    policy: Policy = found
    return policy
