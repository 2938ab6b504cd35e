"""The demonstration: episodes with ground truth, segmented from one clean reference each, measured.

`run` measures and returns a `Report`; `samg_fast.demo.pictures` draws one, and ``samg-fast demo`` is a thin layer above
both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.checks import Frame, Mask, check_whole
from samg_fast.devices import machine
from samg_fast.errors import InputError
from samg_fast.metrics import iou, percentiles
from samg_fast.pipeline.stopwatch import STAGES

if TYPE_CHECKING:
    from samg_fast.samples import Pack
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = [
    "Episode",
    "Report",
    "Run",
    "Shot",
    "frame_times",
    "live_episode",
    "pack_episodes",
    "run",
    "stage_medians",
]

_WARM_UP = 3  # networks are compiled for their shapes at the first frame; that is no frame's time


@dataclass(frozen=True)
class Episode:
    """Frames to segment, with their ground truth.

    Attributes
    ----------
    task, setting : str
    reference : (H, W, 3) uint8
        One clean image of the task.
    reference_mask : (H, W) bool
        Its target.
    frames : iterable of ((H, W, 3) uint8, (H, W) bool)
        Frame and ground truth; read once.
    count : int
        How many there are.
    """

    task: str
    setting: str
    reference: Frame
    reference_mask: Mask
    frames: Iterable[tuple[Frame, Mask]]
    count: int


@dataclass(frozen=True)
class Shot:
    """The result of one frame.

    Attributes
    ----------
    frame : (H, W, 3) uint8
    truth, mask : (H, W) bool
    iou : float
    ms : float
        Time of the whole call, in milliseconds.
    stages : dict
        Milliseconds of each of `STAGES`; empty on a GPU, where a frame is one launch.
    """

    frame: Frame
    truth: Mask
    mask: Mask
    iou: float
    ms: float
    stages: dict[str, float]


@dataclass(frozen=True)
class Run:
    """The results of one episode.

    Attributes
    ----------
    task, setting : str
    target : Target or None
        None where the bundle is fitted to its target.
    shots : tuple of Shot
        At least one.
    """

    task: str
    setting: str
    target: Target | None
    shots: tuple[Shot, ...]

    @property
    def iou(self) -> float:
        """Mean IoU over the frames."""
        return float(np.mean([shot.iou for shot in self.shots]))

    @property
    def iou_min(self) -> float:
        """IoU of the worst frame."""
        return min(shot.iou for shot in self.shots)


@dataclass(frozen=True)
class Report:
    """The results of a demonstration.

    Attributes
    ----------
    runs : tuple of Run
        At least one.
    bundle, backend, precision, device : str
        What it ran on.
    """

    runs: tuple[Run, ...]
    bundle: str
    backend: str
    precision: str
    device: str

    @property
    def shots(self) -> tuple[Shot, ...]:
        """Every frame of every run."""
        return tuple(shot for run in self.runs for shot in run.shots)

    @property
    def mean_iou(self) -> float:
        """Mean over the runs, however many frames each has."""
        return float(np.mean([run.iou for run in self.runs]))

    def by_task(self) -> dict[str, list[Run]]:
        """Return the runs of each task, in the order they came."""
        return {task: [r for r in self.runs if r.task == task] for task in dict.fromkeys(r.task for r in self.runs)}

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values: accuracy per task and setting, milliseconds over all frames."""
        tasks = {
            task: {run.setting: {"iou": round(run.iou, 4), "iou_min": round(run.iou_min, 4)} for run in runs}
            for task, runs in self.by_task().items()
        }
        return {
            "tasks": tasks,
            "mean_iou": round(self.mean_iou, 4),
            "ms_per_frame": {name: round(ms, 3) for name, ms in frame_times(self.shots).items()},
            "stages_ms": {name: round(ms, 3) for name, ms in stage_medians(self.shots).items()},
            "device": self.device,
            "bundle": self.bundle,
            "backend": self.backend,
        }


def frame_times(shots: Sequence[Shot]) -> dict[str, float]:
    """Return the milliseconds per frame that 50, 95 and 99 % of the frames stay within, as p50, p95 and p99."""
    return percentiles([shot.ms for shot in shots], 50, 95, 99)


def stage_medians(shots: Sequence[Shot]) -> dict[str, float]:
    """Return the median milliseconds of each of `STAGES`, where they are known."""
    known = [stage for stage in STAGES if all(stage in shot.stages for shot in shots)]
    return {stage: float(np.median([shot.stages[stage] for shot in shots])) for stage in known}


def pack_episodes(
    pack: Pack, tasks: Sequence[str] = (), settings: Sequence[str] = (), frames: int | None = None
) -> list[Episode]:
    """Choose episodes of a clip pack.

    Parameters
    ----------
    pack : Pack
    tasks, settings : sequence of str
        Names; all where empty.
    frames : int, optional
        At most so many frames of each episode.

    Returns
    -------
    list of Episode

    Raises
    ------
    InputError
        The pack has no such task or setting, or `frames` is less than 1.
    """
    if frames is not None:
        check_whole("frames", frames, 1)
    known = list(dict.fromkeys(setting for task in pack.tasks.values() for setting in task.settings))
    for kind, names, choice in (("task", tasks, list(pack.tasks)), ("setting", settings, known)):
        for name in names:
            if name not in choice:
                raise InputError(f"the clip pack has no {kind} {name!r}: it has {', '.join(choice)}")
    episodes = []
    for name in tasks or pack.tasks:
        task = pack.tasks[name]
        for setting in settings or task.settings:
            shown, masks = task.settings[setting]
            pairs = list(zip(shown, masks, strict=True))[:frames]
            episodes.append(Episode(name, setting, task.reference, task.reference_mask, pairs, len(pairs)))
    return episodes


def live_episode(task: str, setting: str, frames: int, *, size: int = 84, seed: int = 0) -> Episode:
    """Start a dm_control task under a random policy; its frames are rendered as they are asked for.

    Parameters
    ----------
    task, setting : str
        For example "walker_walk" and "video_hard".
    frames : int
        How many, at least 1.
    size : int
        Side of a frame in pixels.
    seed : int
        Of the episode: initial state, actions, background.

    Returns
    -------
    Episode

    Raises
    ------
    InputError
        There is no such task or setting, or `frames` is less than 1.
    MissingExtraError, SamgError
        dm_control is not installed, or nothing can be rendered here.
    """
    check_whole("frames", frames, 1)
    from samg_fast.envs.dmc import LiveTask

    with LiveTask(task, setting, size, seed) as live:
        reference, reference_mask = live.reference()

    def play() -> Iterator[tuple[Frame, Mask]]:
        # A task of its own, begun when the first frame is asked for: an OpenGL context is not held while others run.
        with LiveTask(task, setting, size, seed) as live:
            for _ in range(frames):
                frame = live.step()
                yield frame, live.mask

    return Episode(task, setting, reference, reference_mask, play(), frames)


def run(
    segmenter: Segmenter,
    episodes: Sequence[Episode],
    *,
    advance: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Identify the target of every episode on its reference, then segment its frames one by one.

    Parameters
    ----------
    segmenter : Segmenter
    episodes : sequence of Episode
    advance : callable
        Called after every frame.
    stop : callable
        Asked before every frame; True ends the demonstration with what there is.

    Returns
    -------
    Report
        Of the episodes with at least one frame done.

    Raises
    ------
    InputError
        There was no frame at all.
    """
    runs = []
    for episode in episodes:
        if stop():
            break
        target = segmenter.target_for(episode.reference, episode.reference_mask)
        for _ in range(_WARM_UP):
            segmenter.segment(episode.reference, target)
        shots = []
        for frame, truth in episode.frames:
            if stop():
                break
            shots.append(_shoot(segmenter, target, frame, truth))
            advance()
        if shots:
            runs.append(Run(episode.task, episode.setting, target, tuple(shots)))
    if not runs:
        raise InputError("there was no frame to segment")
    return Report(tuple(runs), segmenter.bundle.name, segmenter.backend, segmenter.precision, machine.processor())


def _shoot(segmenter: Segmenter, target: Target | None, frame: Frame, truth: Mask) -> Shot:
    started = perf_counter()
    out = segmenter.segment(frame, target)
    ms = (perf_counter() - started) * 1e3
    stages = {stage: out.timings[stage] for stage in STAGES if stage in out.timings}
    return Shot(frame, truth, out.mask, iou(out.mask, truth), ms, stages)
