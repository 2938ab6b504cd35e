"""What a demonstration looks like: a video of every frame, and a sheet of the typical and the worst ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from samg_fast.background import Background, Backgrounds
from samg_fast.media import VideoWriter, drawing

if TYPE_CHECKING:
    from samg_fast.checks import Frame
    from samg_fast.demo.run import Report, Shot
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["contact_sheet", "write_video"]

VIDEO_FPS = 12
_CELL = 168  # pixels that a frame of the sheet may take


def write_video(
    report: Report,
    path: str | os.PathLike[str],
    *,
    background: Background = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write every frame as a row of frame, mask over frame, and masked observation, enlarged.

    Parameters
    ----------
    report : Report
    path : str or os.PathLike
        For example ``demo.mp4``.
    background : Background
        What the masked observations have behind the target; drawn anew for every task and setting.
    advance : callable
        Called after every frame.

    Raises
    ------
    FileError
        The video cannot be written.
    """
    height, width = (max(shot.frame.shape[axis] for shot in report.shots) for axis in (0, 1))
    factor = drawing.watchable(height, width)
    behind = Backgrounds(background)
    behind.seed(0)
    with VideoWriter(path, VIDEO_FPS) as video:
        for each in report.runs:
            behind.start_episodes([0])
            for number, shot in enumerate(each.shots):
                words = f"{each.task}  {each.setting}  frame {number}  IoU {shot.iou:.2f}  {shot.ms:.1f} ms"
                masked = behind.compose(shot.frame[None], shot.mask[None], [0])[0]
                panels = [
                    drawing.enlarge(shot.frame, factor),
                    drawing.overlay(shot.frame, shot.mask, factor=factor),
                    drawing.enlarge(masked, factor),
                ]
                video.write(drawing.side_by_side(panels, caption=words))
                advance()


def contact_sheet(segmenter: Segmenter, report: Report) -> Frame:
    """Draw the typical and the worst frame of every run: frame, similarity with the last points, mask, ground truth.

    A fitted bundle has no similarity: there the masked observation is in its place.

    Parameters
    ----------
    segmenter : Segmenter
        The one that made the report: the frames drawn are segmented again, to see what each step saw.
    report : Report

    Returns
    -------
    (H, W, 3) uint8
        A row per task and frame, a group of four columns per setting.
    """
    settings = list(dict.fromkeys(run.setting for run in report.runs))
    columns = ("frame", "similarity" if segmenter.needs_target else "masked", "mask", "truth")
    headings = [f"{setting}: {what}" if what == "frame" else what for setting in settings for what in columns]
    rows = []
    for task, runs in report.by_task().items():
        for kind, pick in (("typical", _typical), ("worst", _worst)):
            of = {run.setting: run for run in runs}
            images: list[Frame] = []
            notes: list[str] = []
            for setting in settings:
                if setting in of:
                    shot = pick(of[setting].shots)
                    images += _strip(segmenter, of[setting].target, shot)
                    notes += ["", "", f"IoU {shot.iou:.2f}", ""]
                else:
                    images += [np.zeros((1, 1, 3), np.uint8)] * len(columns)
                    notes += [""] * len(columns)
            rows.append(drawing.Row(f"{task}\n{kind}", images, notes))
    return drawing.contact_sheet(rows, headings)


def _typical(shots: Sequence[Shot]) -> Shot:
    """Return the frame of the (lower) median IoU."""
    return sorted(shots, key=lambda shot: shot.iou)[(len(shots) - 1) // 2]


def _worst(shots: Sequence[Shot]) -> Shot:
    return min(shots, key=lambda shot: shot.iou)


def _strip(segmenter: Segmenter, target: Target | None, shot: Shot) -> list[Frame]:
    """Draw the four images of a frame."""
    factor = drawing.watchable(*shot.frame.shape[:2], side=_CELL)
    if segmenter.needs_target:
        trace = segmenter.segment(shot.frame, target, trace=True).trace
        assert trace is not None
        last = trace.decodes[-1]
        similarity = drawing.enlarge(drawing.heat_map(trace.similarity[0]), factor)
        second = drawing.draw_points(similarity, last.points, last.labels, factor=factor)
    else:
        second = drawing.enlarge(np.where(shot.mask[..., None], shot.frame, 0).astype(np.uint8), factor)
    return [
        drawing.enlarge(shot.frame, factor),
        second,
        drawing.overlay(shot.frame, shot.mask, factor=factor),
        drawing.enlarge(shot.truth, factor),
    ]
