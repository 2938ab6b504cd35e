"""IoU of what `Segmenter.propose` makes of clicks and boxes, with the ground truth of rendered images.

The first click is the middle of the target, the point farthest from its outline; every further one is the middle of the
largest mistake: on the target where that is missing, off it where too much was taken. It is how interactive
segmentation is measured (SAM, arXiv 2304.02643, section 7.1)::

    python -m benchmarks.prompts --bundle tiny
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import samg_fast
from benchmarks.common import JsonOption, one_line_errors, progress_bar, save_json
from samg_fast.bench.contenders import names
from samg_fast.bench.provenance import heading, provenance
from samg_fast.checks import Frame, Mask
from samg_fast.envs.dmc import reference
from samg_fast.envs.tasks import EIGHT, UNSEEN, find_task
from samg_fast.metrics import iou

__all__ = ["CLICKS", "app", "measure", "next_click"]

app = typer.Typer(add_completion=False)

CLICKS = (1, 2, 3, 5)
_GROUPS = {"the paper's": EIGHT, "unseen by tiny": UNSEEN}


def next_click(found: Mask, truth: Mask) -> tuple[tuple[float, float], int]:
    """Return the middle of the largest mistake of a mask, (x, y), and the label of a click there."""
    from scipy.ndimage import distance_transform_edt

    middles = []
    for wrong, label in ((truth & ~found, 1), (found & ~truth, 0)):
        depth = distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        middles.append((float(depth.max()), (float(x), float(y)), label))
    _, at, label = max(middles)
    return at, label


def measure(segmenter: samg_fast.Segmenter, image: Frame, truth: Mask) -> dict[str, float]:
    """Return the IoU after some clicks, and after a box."""
    ious: dict[str, float] = {}
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    found = np.zeros_like(truth)
    for count in range(1, max(CLICKS) + 1):
        at, label = next_click(found, truth)
        points.append(at)
        labels.append(label)
        found = segmenter.propose(image, points, labels).best
        if count in CLICKS:
            ious[f"{count} click{'s' * (count > 1)}"] = iou(found, truth)
    rows, columns = np.nonzero(truth)
    box = (columns.min(), rows.min(), columns.max(), rows.max())
    ious["a box"] = iou(segmenter.propose(image, box=box).best, truth)
    return ious


@app.command()
def main(
    bundle: Annotated[str, typer.Option(help="A shipped bundle or the folder of one.")] = "tiny",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = ",".join((*EIGHT, *UNSEEN)),
    count: Annotated[int, typer.Option(help="Images of each task.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the first image.", min=0)] = 30_000,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=32)] = 84,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure, and print the mean IoU as a Markdown table."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    with one_line_errors(), samg_fast.load(bundle, threads=threads) as segmenter:
        chosen = [find_task(name).name for name in names(tasks)]
        found: dict[str, list[dict[str, float]]] = {}
        with progress_bar("tasks", len(chosen)) as advance:
            for task in chosen:
                shown = [reference(task, size, seed + number) for number in range(count)]
                found[task] = [measure(segmenter, image, mask) for image, mask in shown]
                advance()
        about = provenance([])
        typer.echo(heading(about, f"{bundle}: {count} images of each task in its original setting").rstrip())
        typer.echo(f"\n{_markdown(found)}")
        if json_file is not None:
            save_json(Path(json_file), {**about, "iou": found})


def _markdown(found: dict[str, list[dict[str, float]]]) -> str:
    columns = list(next(iter(found.values()))[0])
    lines = [f"| task | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]

    def row(name: str, tasks: Sequence[str]) -> str:
        means = [np.mean([each[column] for task in tasks for each in found[task]]) for column in columns]
        return f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |"

    lines += [row(task, [task]) for task in found]
    for group, members in _GROUPS.items():
        inside = [task for task in found if task in members]
        if len(inside) > 1:
            lines.append(row(f"**mean of {len(inside)}: {group}**", inside))
    return "\n".join(lines)


if __name__ == "__main__":
    app()
