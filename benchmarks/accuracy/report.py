"""Scores of frames whose ground truth is known, reduced to figures, tables and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.accuracy import heatmap
from benchmarks.accuracy.frames import View
from samg_fast.envs.tasks import ADROIT, EIGHT, UNSEEN
from samg_fast.media.drawing import PAPER, Row, contact_sheet, enlarge, overlay, watchable
from samg_fast.metrics import iou

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.accuracy.frames import TaskFrames
    from samg_fast.checks import Frame, Mask

__all__ = ["Results", "Scores", "common_grid", "heat_map", "markdown", "markdown_common_grid", "sheet", "summary"]


_CELL = 168  # pixels: the side that frames are enlarged to, as far as whole pixels go


@dataclass(frozen=True)
class Scores:
    """What one segmenter did on one task at one size in one setting.

    Attributes
    ----------
    iou : (n,) float64
        Of every frame.
    masks : (n, H, W) bool
        What it found.
    absent : int
        Frames without a pixel of the target; their IoU is 1 or 0.
    """

    iou: NDArray[np.float64]
    masks: Mask
    absent: int

    @property
    def worst(self) -> int:
        """Index of the frame with the lowest IoU."""
        return int(self.iou.argmin())

    @property
    def typical(self) -> int:
        """Index of a frame with the median IoU, or the one just below it."""
        return int(np.argsort(self.iou, kind="stable")[(len(self.iou) - 1) // 2])


Results = dict[View, dict[str, Scores]]
"""Task and size → setting → scores."""


def summary(results: Results) -> dict[str, Any]:
    """Reduce scores to figures.

    Returns
    -------
    dict
        ``views``: ``TASK@SIDE`` → setting → ``iou`` (mean), ``iou_min``, ``frames``, ``absent``; ``means``: group of
        tasks ("paper", "hands", "unseen", "other") → setting → mean over its tasks of the mean IoU, of each at the
        first of its sizes.
    """
    views = {
        str(view): {
            setting: {
                "iou": float(score.iou.mean()),
                "iou_min": float(score.iou.min()),
                "frames": len(score.iou),
                "absent": score.absent,
            }
            for setting, score in scores.items()
        }
        for view, scores in results.items()
    }
    means: dict[str, dict[str, float]] = {}
    for group, members in _groups(results).items():
        first = _first_sizes(members)
        means[group] = {
            setting: float(np.mean([views[str(view)][setting]["iou"] for view in first]))
            for setting in _settings(results)
        }
    return {"views": views, "means": means}


def _settings(results: Results) -> list[str]:
    return list(next(iter(results.values())))


def _groups(results: Results) -> dict[str, list[View]]:
    """Sort views into the paper's eight, the hands, the unseen and the others; groups without a task are left out."""
    named = {"paper": EIGHT, "hands": ADROIT, "unseen": UNSEEN}
    groups: dict[str, list[View]] = {group: [] for group in (*named, "other")}
    for view in results:
        groups[next((group for group, tasks in named.items() if view.task in tasks), "other")].append(view)
    return {group: members for group, members in groups.items() if members}


def _first_sizes(members: Sequence[View]) -> list[View]:
    """Keep one view of each task, so that none counts more than once."""
    first: dict[str, View] = {}
    for view in members:
        first.setdefault(view.task, view)
    return list(first.values())


def markdown(results: Results) -> str:
    """Lay scores out as a Markdown table: mean and worst frame of every view and setting, and means of the groups."""
    figures = summary(results)
    settings = _settings(results)
    lines = [
        "| task | pixels | " + " | ".join(f"{setting} mean | worst" for setting in settings) + " |",
        "| --- | ---: |" + " ---: | ---: |" * len(settings),
    ]
    for group, members in _groups(results).items():
        for view in members:
            cells = (figures["views"][str(view)][setting] for setting in settings)
            row = "".join(f" {cell['iou']:.3f} | {cell['iou_min']:.3f} |" for cell in cells)
            lines.append(f"| {view.task} | {view.size} |{row}")
        means = "".join(f" **{figures['means'][group][setting]:.3f}** | |" for setting in settings)
        lines.append(f"| **mean, {len(_first_sizes(members))} {group}** | |{means}")
    absent = sum(score.absent for scores in results.values() for score in scores.values())
    count = sum(len(score.iou) for scores in results.values() for score in scores.values())
    return "\n".join([*lines, "", f"{count} frames, {absent} of them without a visible target."])


def common_grid(results: Results, rendered: Mapping[View, TaskFrames]) -> dict[str, dict[str, float]]:
    """Measure the tasks of several sizes on one grid: all masks brought to the smallest size, against its truth.

    A rim of one pixel costs a small mask more IoU than a large one. On one grid only what is found differs.

    Returns
    -------
    dict
        ``TASK@SIDE`` → setting → mean IoU on the smallest size's grid; and under ``truth`` that of the ground truth
        itself, brought there: what a perfect mask would get. Empty where no task has several sizes.
    """
    figures: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(view.task for view in results):
        views = [view for view in results if view.task == task]
        smallest = min(views, key=lambda view: view.size)
        for view in views if len(views) > 1 else ():
            small, own = rendered[smallest].settings, rendered[view].settings
            figures[str(view)] = {
                setting: _mean_iou(score.masks, small[setting][1]) for setting, score in results[view].items()
            }
            figures[str(view)]["truth"] = float(
                np.mean([_mean_iou(truths, small[setting][1]) for setting, (_, truths) in own.items()])
            )
    return figures


def _mean_iou(masks: Mask, truths: Mask) -> float:
    """Bring masks to the truths' size, where half of a pixel's area decides, and average the IoU."""
    size = truths.shape[2], truths.shape[1]
    shares = (np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)) for mask in masks)
    return float(np.mean([iou(share >= 0.5, truth) for share, truth in zip(shares, truths, strict=True)]))


def markdown_common_grid(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Lay the figures of `common_grid` out as a Markdown table."""
    columns = list(next(iter(figures.values())))
    lines = [
        "Mean IoU on the smallest size's grid, all masks brought there; truth: what a perfect mask gets there.",
        "",
        f"| task@pixels | {' | '.join(columns)} |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name, row in figures.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")
    return "\n".join(lines)


def heat_map(title: str, results: Results) -> Frame:
    """Draw the mean IoU of every view and setting, and the means of the groups, as a heat map, (H, W, 3) uint8."""
    figures = summary(results)
    settings = _settings(results)
    blocks = []
    for group, members in _groups(results).items():
        block = {
            f"{view.task}, {view.size} px": [figures["views"][str(view)][each]["iou"] for each in settings]
            for view in members
        }
        block[f"mean, {len(_first_sizes(members))} {group}"] = [figures["means"][group][each] for each in settings]
        blocks.append(block)
    return heatmap.draw(f"{title}: mean IoU with ground truth", settings, blocks)


def sheet(results: Results, rendered: Mapping[View, TaskFrames]) -> Frame:
    """Draw a typical and the worst frame of every view and setting: frame, mask found, ground truth.

    Parameters
    ----------
    results : dict
        Task and size → setting → scores.
    rendered : mapping
        Task and size → the frames they are of.

    Returns
    -------
    (H, W, 3) uint8
    """
    factors = {view: watchable(view.size, view.size, side=_CELL) for view in results}
    width = max(view.size * factor for view, factor in factors.items())
    rows = []
    for view, scores in results.items():
        shown, factor = rendered[view], factors[view]
        for setting, score in scores.items():
            frames, truths = shown.settings[setting]
            images, notes = [overlay(shown.reference, shown.reference_mask, factor=factor)], ["reference"]
            for index in (score.typical, score.worst):
                frame, found, truth = frames[index], score.masks[index], truths[index]
                images += [enlarge(frame, factor), overlay(frame, found, factor=factor), enlarge(truth, factor)]
                notes += ["", f"IoU {score.iou[index]:.3f}", ""]
            label = f"{view.task}\n{view.size} px\n{setting}\nmean {score.iou.mean():.3f}"
            rows.append(Row(label, [_centred(each, width) for each in images], notes))
    columns = ["mask found", "ground truth"]
    return contact_sheet(rows, ["", "typical frame", *columns, "worst frame", *columns])


def _centred(drawn: Frame, width: int) -> Frame:
    """Put an image into the middle of a column, where its note stands."""
    canvas = np.full((drawn.shape[0], width, 3), PAPER, np.uint8)
    left = (width - drawn.shape[1]) // 2
    canvas[:, left : left + drawn.shape[1]] = drawn
    return canvas
