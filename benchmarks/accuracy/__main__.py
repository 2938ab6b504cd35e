"""Accuracy on fresh frames: IoU against MuJoCo's ground truth, per task, size and setting.

Each task is identified once at every size, from one clean image in the original setting and its mask, or from
several with ``--references``; then frames of several episodes, of random but smooth actions, are segmented in every
setting. All bundles, precisions, sizes and settings are shown the same motion. ``--pairs``, ``--swap`` and ``--parts``
measure whether a segmenter cuts out what it was shown. Examples::

    python -m benchmarks.accuracy --bundle tiny --heatmap accuracy.png --picture frames.png
    python -m benchmarks.accuracy --settings original,video_hard --pairs --swap --parts
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.accuracy.frames import DEFAULT_SIZES, Plan, check_seeds, load_backgrounds, plan_views, render
from benchmarks.accuracy.prompting import Prompting, domain, measure_pairs, measure_parts, measure_swap
from benchmarks.accuracy.report import (
    Scores,
    common_grid,
    heat_map,
    markdown,
    markdown_common_grid,
    sheet,
    summary,
)
from benchmarks.common import Configuration, PrecisionsOption, configurations, one_line_errors, progress_bar, save_json
from samg_fast.bench.contenders import labels, names, open_segmenters
from samg_fast.bench.provenance import heading, provenance
from samg_fast.envs.settings import SETTINGS, check_setting, is_color, open_colors
from samg_fast.envs.tasks import ADROIT, EIGHT, UNSEEN
from samg_fast.errors import InputError
from samg_fast.media import IMAGE_SUFFIXES, write_image
from samg_fast.media.drawing import Row, contact_sheet
from samg_fast.metrics import iou

if TYPE_CHECKING:
    from benchmarks.accuracy.frames import TaskFrames, View
    from benchmarks.accuracy.report import Results
    from samg_fast import Segmenter

__all__ = ["app", "evaluate"]

app = typer.Typer(add_completion=False)


def evaluate(segmenter: Segmenter, frames: TaskFrames) -> dict[str, Scores]:
    """Identify a task from its references and segment its frames one by one.

    Parameters
    ----------
    segmenter : Segmenter
        What is measured.
    frames : TaskFrames
        What it is measured on.

    Returns
    -------
    dict
        Setting → `Scores`.
    """
    images, masks = zip((frames.reference, frames.reference_mask), *frames.further, strict=True)
    target = segmenter.target_for(images, masks)
    scores: dict[str, Scores] = {}
    for setting, (shown, truths) in frames.settings.items():
        found = np.stack([segmenter.segment(frame, target).mask for frame in shown])
        each = np.array([iou(mask, truth) for mask, truth in zip(found, truths, strict=True)])
        scores[setting] = Scores(each, found, int(np.count_nonzero(~truths.any(axis=(1, 2)))))
    return scores


@app.command()
def main(
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle to measure; repeat for several. [tiny]")] = None,
    backend: Annotated[str, typer.Option(help="Backend of all of them.")] = "auto",
    precision: PrecisionsOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = ",".join((*EIGHT, *ADROIT)),
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Add the four tasks of domains kept out of training.")
    ] = False,
    settings: Annotated[str, typer.Option(help="Settings, separated by commas.")] = ",".join(SETTINGS),
    clips: Annotated[
        Path | None,
        typer.Option(
            help="Folder of video clips, or with a folder of them for each video setting; procedural ones without it."
        ),
    ] = None,
    clip_names: Annotated[
        str, typer.Option(help="Clips to use, NAME or SETTING/NAME, separated by commas. [all]")
    ] = "",
    colors: Annotated[Path | None, typer.Option(help="Folder with color_easy.json and color_hard.json.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="Sides of the frames in pixels, separated by commas: SIDES for all tasks, or TASK=SIDES for one; "
            f"repeat for several. [{', '.join(DEFAULT_SIZES)}]"
        ),
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each task, size and setting.", min=1)] = 3,
    frames: Annotated[int, typer.Option(help="Frames of each episode.", min=1)] = 20,
    stride: Annotated[int, typer.Option(help="Steps from one frame to the next.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the episodes.", min=0)] = 1_000,
    reference_seed: Annotated[int, typer.Option(help="Seed of the reference images.", min=0)] = 7,
    references: Annotated[int, typer.Option(help="Reference images of each task.", min=1)] = 1,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also paste another task's target into each frame, and ask for either.")
    ] = False,
    swap: Annotated[
        bool, typer.Option("--swap", help="Also segment each task's frames under the targets of other tasks.")
    ] = False,
    parts: Annotated[
        bool, typer.Option("--parts", help="Also take the upper half of each target for the target.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    heatmap_file: Annotated[Path | None, typer.Option("--heatmap", help="Write the mean IoU as an image here.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Write typical and worst frames here.")] = None,
) -> None:
    """Render fresh frames, segment them and print the IoU as a Markdown table."""
    # MuJoCo's warnings about the suite's own models say nothing about the figures.
    logging.getLogger("absl").setLevel(logging.ERROR)
    with one_line_errors(), ExitStack() as stack:
        _check_files(json_file, heatmap_file, picture_file)
        views = plan_views([*names(tasks), *(UNSEEN if unseen else ())], size)
        modes = [check_setting(name) for name in dict.fromkeys(names(settings))]
        if not modes:
            raise InputError(f"settings is empty: there are {', '.join(SETTINGS)}")
        palettes = {mode: open_colors(colors, mode) for mode in modes if colors and is_color(mode)}
        plan = Plan(episodes, frames, stride, seed, reference_seed, references, palettes=palettes)
        check_seeds(plan, views)
        if clips is not None:
            sides = list(dict.fromkeys(view.size for view in views))
            plan = replace(plan, clips=load_backgrounds(clips, names(clip_names), modes, sides, plan))
        wanted = configurations(bundle, backend, precision, [threads])
        segmenters, refused = open_segmenters({each: each.open for each in wanted}, stack)
        rendered, results = _measure(views, modes, plan, segmenters)
        asked = [name for name, wish in (("pairs", pairs), ("swap", swap), ("parts", parts)) if wish]
        prompting = {key: _prompting(segmenter, rendered, modes, asked) for key, segmenter in segmenters.items()}

        about = provenance(["gymnasium-robotics"])
        titles = labels(segmenters)
        _report(about, plan, {titles[key]: result for key, result in results.items()}, rendered)
        for key, measured in prompting.items():
            if asked:
                typer.echo(f"\n**{titles[key]}: what it was shown**\n\n{measured.markdown()}")
        for configuration, reason in refused.items():
            typer.echo(f"\nNot measured: {configuration}: {reason}")
        if json_file is not None:
            keys = ("episodes", "frames", "stride", "seed", "reference_seed", "references")
            layout = {key: getattr(plan, key) for key in keys}
            runs = [
                {
                    **_identity(key, segmenters[key]),
                    **summary(result),
                    "common_grid": common_grid(result, rendered),
                    **({"prompting": prompting[key].to_dict()} if asked else {}),
                }
                for key, result in results.items()
            ]
            save_json(json_file, {**about, "plan": layout, "backgrounds": _backgrounds(plan), "results": runs})
        if heatmap_file is not None:
            maps = [heat_map(titles[key], result) for key, result in results.items()]
            write_image(heatmap_file, contact_sheet([Row("", [each]) for each in maps]))
        if picture_file is not None:
            write_image(picture_file, sheet(next(iter(results.values())), rendered))


def _check_files(json_file: Path | None, *images: Path | None) -> None:
    """Check, before minutes of work, that what comes of it can be written."""
    for file in (json_file, *images):
        if file is not None and not file.parent.is_dir():
            raise InputError(f"cannot write {file}: there is no folder {file.parent}")
    for file in images:
        if file is not None and file.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"cannot write {file}: a picture must end in {', '.join(sorted(IMAGE_SUFFIXES))}")


def _measure(
    views: list[View], settings: list[str], plan: Plan, segmenters: dict[Configuration, Segmenter]
) -> tuple[dict[View, TaskFrames], dict[Configuration, Results]]:
    """Render view by view, and show every segmenter the same frames."""
    rendered: dict[View, TaskFrames] = {}
    results: dict[Configuration, Results] = {configuration: {} for configuration in segmenters}
    with progress_bar("tasks", len(views)) as advance:
        for view in views:
            rendered[view] = render(view, settings, plan)
            for configuration, segmenter in segmenters.items():
                results[configuration][view] = evaluate(segmenter, rendered[view])
            advance()
    return rendered, results


def _prompting(
    segmenter: Segmenter, rendered: dict[View, TaskFrames], settings: list[str], asked: list[str]
) -> Prompting:
    """Measure whether a segmenter cuts out what it was shown, on each task at the size that most tasks have."""
    sizes = [view.size for view in rendered]
    size = max(sorted(set(sizes)), key=sizes.count)
    tasks = {view.task: frames for view, frames in rendered.items() if view.size == size}
    if {"pairs", "swap"} & set(asked) and len({domain(task) for task in tasks}) < 2:
        raise InputError("--pairs and --swap need tasks of two domains or more at one size")
    return Prompting(
        {setting: measure_pairs(segmenter, tasks, setting) for setting in settings if "pairs" in asked},
        {setting: measure_swap(segmenter, tasks, setting) for setting in settings if "swap" in asked},
        measure_parts(segmenter, tasks) if "parts" in asked else None,
    )


def _identity(configuration: Configuration, segmenter: Segmenter) -> dict[str, str]:
    """Return what was asked for, and what was opened."""
    return {
        "asked": str(configuration),
        "bundle": segmenter.bundle.name,
        "backend": segmenter.backend,
        "precision": segmenter.precision,
    }


def _backgrounds(plan: Plan) -> str | dict[str, list[str]]:
    """Name the clips of every video setting."""
    named = {setting: [clip.name for clip in clips] for (_, setting), clips in plan.clips.items()}
    return named or "procedural"


def _report(about: dict[str, Any], plan: Plan, results: dict[str, Results], rendered: dict[View, TaskFrames]) -> None:
    """Print everything but the images."""
    backgrounds = _backgrounds(plan)
    if not isinstance(backgrounds, str):
        backgrounds = "; ".join(f"{setting} with clips {', '.join(clips)}" for setting, clips in backgrounds.items())
    number = "one clean reference" if plan.references == 1 else f"{plan.references} clean references"
    what = (
        f"{plan.episodes} episodes × {plan.frames} frames of each task, size and setting, {number} each; "
        f"backgrounds: {backgrounds}; colours: {'of the sets given' if plan.palettes else 'random'}"
    )
    typer.echo(heading(about, what).rstrip())
    for title, result in results.items():
        typer.echo(f"\n**{title}**\n\n{markdown(result)}")
        if common := common_grid(result, rendered):
            typer.echo(f"\n{markdown_common_grid(common)}")


if __name__ == "__main__":
    app()
