"""Fitted bundles beside their teacher: IoU against the ground truth on frames that neither was made with, and minutes.

Every task is fitted as `samg-fast fit` does, on frames of its own episodes in the original setting, unless the folder
of fits has it already; then both segment the same fresh frames. Examples::

    python -m benchmarks.fit --fits fits --backgrounds dmcgb --without 'video_hard/video4?' --clips dmcgb \
        --clip-names video_hard/video40,video_hard/video41
    python -m benchmarks.fit --labels shipped --unseen
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

import samg_fast
from benchmarks.accuracy.__main__ import evaluate
from benchmarks.accuracy.frames import Plan, View, load_backgrounds, render
from benchmarks.common import one_line_errors, progress_bar, save_json
from samg_fast.bench.contenders import names
from samg_fast.bench.provenance import heading, provenance
from samg_fast.envs.dmc import reference
from samg_fast.envs.settings import check_setting, is_color, open_colors
from samg_fast.envs.tasks import ADROIT, EIGHT, UNSEEN, find_task
from samg_fast.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.accuracy.report import Scores
    from samg_fast.envs.backgrounds import VideoClip

__all__ = ["Result", "app", "markdown"]

app = typer.Typer(add_completion=False)

GROUPS = {"the paper's": EIGHT, "hands": ADROIT, "unseen by tiny": UNSEEN}


class Labels(str, Enum):
    """Where the masks come from that a network is fitted to."""

    teacher = "teacher"
    truth = "truth"
    shipped = "shipped"


@dataclass(frozen=True)
class Result:
    """One task.

    Attributes
    ----------
    task : str
    teacher, fitted : dict
        Setting → `Scores`.
    minutes : float or None
        That the fit took, recording and labelling included; None if it was there.
    kilobytes : float
        Of the fitted bundle's network.
    """

    task: str
    teacher: Mapping[str, Scores]
    fitted: Mapping[str, Scores]
    minutes: float | None
    kilobytes: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""

        def plain(scores: Mapping[str, Scores]) -> dict[str, Any]:
            return {
                setting: {"iou": round(float(each.iou.mean()), 4), "worst": round(float(each.iou.min()), 4)}
                for setting, each in scores.items()
            }

        return {
            "task": self.task,
            "teacher": plain(self.teacher),
            "fitted": plain(self.fitted),
            "minutes": self.minutes,
            "kilobytes": self.kilobytes,
        }


@app.command()
def main(
    bundle: Annotated[str, typer.Option(help="The teacher, which is measured too.")] = "tiny",
    labels: Annotated[Labels, typer.Option(help="What is fitted to; or the bundles that ship.")] = Labels.teacher,
    fits: Annotated[Path, typer.Option(help="Where the fitted bundles are, or come to be: FITS/TASK.")] = Path("fits"),
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = ",".join((*EIGHT, *ADROIT)),
    unseen: Annotated[bool, typer.Option("--unseen", help="Add the four tasks that tiny has never seen.")] = False,
    count: Annotated[int, typer.Option(help="Frames to record of each task.", min=32)] = 600,
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 3000,
    minutes: Annotated[float | None, typer.Option(help="Fewer steps, if they take longer.")] = None,
    backgrounds: Annotated[
        list[Path] | None, typer.Option(help="Images and videos to put behind the targets; repeat for several.")
    ] = None,
    without: Annotated[str, typer.Option(help="Videos of it that are not opened, separated by commas.")] = "",
    settings: Annotated[str, typer.Option(help="Settings to measure in.")] = "original,color_hard,video_hard",
    clips: Annotated[Path | None, typer.Option(help="Videos to measure with; procedural ones without it.")] = None,
    clip_names: Annotated[str, typer.Option(help="Which of them, NAME or SETTING/NAME. [all]")] = "",
    colors: Annotated[Path | None, typer.Option(help="Folder with color_easy.json and color_hard.json.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each task and setting.", min=1)] = 3,
    frames: Annotated[int, typer.Option(help="Frames of each episode.", min=1)] = 10,
    stride: Annotated[int, typer.Option(help="Steps from one frame to the next.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the episodes that measure.", min=0)] = 1_000,
    reference_seed: Annotated[int, typer.Option(help="Seed of the reference images.", min=0)] = 7,
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.", min=32)] = 84,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the segmenters.", min=1)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Fit, measure, and print the IoU as a Markdown table."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    with one_line_errors(), samg_fast.load(bundle, threads=threads) as teacher:
        chosen = [find_task(name).name for name in [*names(tasks), *(UNSEEN if unseen else ())]]
        modes = [check_setting(name) for name in names(settings)]
        palettes = {mode: open_colors(colors, mode) for mode in modes if colors and is_color(mode)}
        plan = Plan(episodes, frames, stride, seed, reference_seed, palettes=palettes)
        if clips is not None:
            plan = replace(plan, clips=load_backgrounds(clips, names(clip_names), modes, [size], plan))
        missing = {
            task for task in chosen if labels is not Labels.shipped and not (fits / task / "manifest.json").exists()
        }
        behind = _behind(backgrounds or [], names(without)) if missing else []
        results = []
        with progress_bar("tasks", len(chosen)) as advance:
            for task in chosen:
                folder: str | Path = task if labels is Labels.shipped else fits / task
                took = None
                if task in missing:
                    took = _fit(task, fits / task, teacher, labels, behind, count, steps, minutes, size, reference_seed)
                shown = render(View(task, size), modes, plan)
                with samg_fast.load(folder, threads=threads) as fitted:
                    kilobytes = sum(each.stat().st_size for each in fitted.bundle.path.glob("*.onnx")) / 1e3
                    scores = evaluate(teacher, shown), evaluate(fitted, shown)
                results.append(Result(task, *scores, took, round(kilobytes, 1)))
                advance()
        about = provenance(["gymnasium-robotics"])
        what = f"{episodes} episodes × {frames} frames of each task and setting; labels: {labels.value}"
        typer.echo(heading(about, what).rstrip())
        typer.echo(f"\n{markdown(results, modes)}")
        if json_file is not None:
            save_json(json_file, {**about, "results": [each.to_json() for each in results]})


def _behind(folders: Sequence[Path], without: Sequence[str]) -> list[VideoClip]:
    from samg_fast.fitting.sources import read_backgrounds

    return [clip for folder in folders for clip in read_backgrounds(folder, without=without)]


def _fit(
    task: str,
    folder: Path,
    teacher: samg_fast.Segmenter,
    labels: Labels,
    behind: Sequence[VideoClip],
    count: int,
    steps: int,
    minutes: float | None,
    size: int,
    seed: int,
) -> float:
    """Fit one task, and return the minutes it took."""
    from samg_fast.fitting import fit
    from samg_fast.fitting.sources import record

    began = monotonic()
    truth = labels is Labels.truth
    shown = ("original", "color_hard") if truth else ("original",)
    frames, masks = record(task, count, settings=shown, size=size)
    target = None if truth else teacher.target_for(*reference(task, size, seed))
    fit(
        None if truth else teacher, target, frames, folder,
        masks=masks if truth else None, backgrounds=behind, steps=steps, minutes=minutes,
    )  # fmt: skip
    return round((monotonic() - began) / 60, 2)


def markdown(results: Sequence[Result], settings: Sequence[str]) -> str:
    """Lay the results out as a table, with a mean for each group of tasks."""
    if not results:
        raise InputError("tasks is empty: name at least one")
    columns = [f"{setting}: teacher | fitted | worst" for setting in settings]
    lines = [
        f"| task | {' | '.join(columns)} | minutes | kB |",
        f"| --- |{' ---: |' * (3 * len(settings) + 2)}",
    ]

    def cells(chosen: Sequence[Result]) -> str:
        parts = []
        for setting in settings:
            taught = np.mean([each.teacher[setting].iou.mean() for each in chosen])
            fitted = np.mean([each.fitted[setting].iou.mean() for each in chosen])
            parts.append(f"{taught:.3f} | {fitted:.3f} | {min(each.fitted[setting].iou.min() for each in chosen):.3f}")
        return " | ".join(parts)

    for each in results:
        minutes = "–" if each.minutes is None else f"{each.minutes:.1f}"
        lines.append(f"| {each.task} | {cells([each])} | {minutes} | {each.kilobytes:.0f} |")
    for group, members in GROUPS.items():
        chosen = [each for each in results if each.task in members]
        if len(chosen) > 1:
            lines.append(f"| **mean of {len(chosen)}: {group}** | {cells(chosen)} | | |")
    return "\n".join(lines)


if __name__ == "__main__":
    app()
