"""The frames that accuracy is measured on: tasks at the sizes asked for, in every setting, with ground truth.

They come from `samg_fast.envs.dmc.LiveTask`: the same simulation, camera and settings as `samg_fast.envs.make` gives,
with random but smooth actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from samg_fast.checks import whole_numbers
from samg_fast.envs.settings import SETTINGS, clip_folder, is_video
from samg_fast.envs.tasks import ADROIT, EIGHT, TASKS, UNSEEN, find_task, nearest
from samg_fast.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from samg_fast.checks import Frame, Mask
    from samg_fast.envs.backgrounds import Clip
    from samg_fast.envs.settings import Palette

__all__ = ["DEFAULT_SIZES", "Plan", "TaskFrames", "View", "check_seeds", "load_backgrounds", "plan_views", "render"]

DEFAULT_SIZES: Final = ("84", "adroit_pen=84,160,224")
"""The sizes of the SAM-G paper (arXiv 2312.17116), which says that resolution decides on the pen."""

_MIN_SIDE = 8

# A task's place here gives its seeds: it is shown the same motion whichever other tasks are measured.
_ORDER: Final = tuple(dict.fromkeys((*EIGHT, *UNSEEN, *ADROIT, *TASKS)))


class View(NamedTuple):
    """One task at one size: a row of the tables.

    Attributes
    ----------
    task : str
        Its name.
    size : int
        Side of the frames in pixels.
    """

    task: str
    size: int

    def __str__(self) -> str:
        return f"{self.task}@{self.size}"


@dataclass(frozen=True)
class Plan:
    """Which frames are rendered of every task and size in every setting.

    Attributes
    ----------
    episodes, frames, stride : int
        Episodes; frames of each; steps (of two control steps) from one frame to the next.
    seed : int
        Of the first episode of the first task; every episode of a task has its own, whatever the setting and the size,
        so that all of them show the same motion.
    reference_seed : int
        Of the state on the reference images.
    references : int
        Reference images of each task. The first is the first frame of an episode; each further one is taken half-way
        through an episode of its own, as long as the evaluated ones, with the seed after the one before.
    clips : mapping
        (Side, setting) → backgrounds; procedural where missing.
    palettes : mapping
        Setting → colour sets; random colours where missing.
    """

    episodes: int = 3
    frames: int = 20
    stride: int = 5
    seed: int = 1_000
    reference_seed: int = 7
    references: int = 1
    clips: Mapping[tuple[int, str], Sequence[Clip]] = field(default_factory=dict)
    palettes: Mapping[str, Palette] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        return self.frames * self.stride

    def seeds(self, task: str) -> range:
        """Return the seeds of a task's episodes."""
        first = self.seed + _ORDER.index(task) * self.episodes
        return range(first, first + self.episodes)


@dataclass(frozen=True)
class TaskFrames:
    """Rendered frames of one task at one size.

    Attributes
    ----------
    reference, reference_mask : (H, W, 3) uint8, (H, W) bool
        The clean image and its ground truth.
    settings : dict
        Setting → frames (n, H, W, 3) uint8 and ground truth (n, H, W) bool.
    further : sequence
        More reference images, each with its ground truth.
    """

    reference: Frame
    reference_mask: Mask
    settings: dict[str, tuple[Frame, Mask]]
    further: Sequence[tuple[Frame, Mask]] = ()


def plan_views(tasks: Sequence[str], sizes: Sequence[str] | None = None) -> list[View]:
    """List the tasks, each at every size it is rendered at.

    Parameters
    ----------
    tasks : sequence of str
        Their names.
    sizes : sequence of str, optional
        Each ``SIDES``, for all tasks, or ``TASK=SIDES``, for that one instead; the sides in pixels, separated by
        commas. Other tasks are rendered at 84. By default `DEFAULT_SIZES`.

    Returns
    -------
    list of View
        In the order of the tasks and of the sides given.

    Raises
    ------
    InputError
        No task, an unknown one (the message names the nearest), the size of one that is not among `tasks`, or sides
        that are no numbers.
    """
    chosen = [find_task(task).name for task in dict.fromkeys(tasks)]
    if not chosen:
        raise InputError("tasks is empty: name at least one")
    sides: dict[str, list[int]] = {}
    for text in DEFAULT_SIZES if sizes is None else sizes:
        task, equals, listed = text.rpartition("=")
        if equals and find_task(task).name not in chosen and sizes is not None:
            raise InputError(f"size: {task} is not among the tasks: {nearest(task, chosen)}")
        sides.setdefault(task, []).extend(_sides(text, listed))
    everywhere = sides.get("", [84])
    return [View(task, side) for task in chosen for side in dict.fromkeys(sides.get(task, everywhere))]


def _sides(text: str, listed: str) -> list[int]:
    """Read the sides in a size option."""
    sides = whole_numbers(listed, _MIN_SIDE)
    if not sides:
        expected = f"sides in pixels, each a whole number of at least {_MIN_SIDE}, such as 84 or adroit_pen=84,160"
        raise InputError(f"size must be {expected}, it is {text!r}")
    return sides


def load_backgrounds(
    folder: Path, names: Sequence[str], settings: Sequence[str], sides: Sequence[int], plan: Plan
) -> dict[tuple[int, str], Sequence[Clip]]:
    """Read clips for every video setting at every size.

    Parameters
    ----------
    folder : path
        Clips; or, as the DMControl Generalization Benchmark has them, a folder of clips for each video setting.
    names : sequence of str
        Clips to read, ``NAME`` or, of one setting's folder, ``SETTING/NAME``; all where empty.
    settings : sequence of str
        The others than video settings need none.
    sides : sequence of int
        In pixels.
    plan : Plan
        No more of a clip is kept than its episodes show.

    Returns
    -------
    dict
        (Side, setting) → clips.

    Raises
    ------
    InputError
        A folder has no clip, or not the one named.
    FileError
        A clip cannot be decoded.
    """
    from samg_fast.envs.backgrounds import load_clips

    backgrounds: dict[tuple[int, str], Sequence[Clip]] = {}
    for setting in filter(is_video, settings):
        place = clip_folder(folder, setting)
        others = set(SETTINGS) - {setting}
        chosen = [name.removeprefix(f"{setting}/") for name in names if name.partition("/")[0] not in others]
        if names and not chosen:
            raise InputError(f"clips: no name for {setting} among {', '.join(names)}")
        for side in sides:
            backgrounds[side, setting] = load_clips(place, chosen or None, size=(side, side), limit=plan.steps + 1)
    return backgrounds


def check_seeds(plan: Plan, views: Sequence[View]) -> None:
    """Check that no further reference of a task is taken from an episode of it that is evaluated.

    Raises
    ------
    InputError
        One is.
    """
    further = range(plan.reference_seed + 1, plan.reference_seed + plan.references)
    for view in views:
        episodes = plan.seeds(view.task)
        if set(further) & set(episodes):
            taken = f"seeds {further[0]} to {further[-1]}, but its episodes {episodes[0]} to {episodes[-1]}"
            raise InputError(f"the further references of {view.task} have {taken}: expected none in common")


def render(view: View, settings: Sequence[str], plan: Plan) -> TaskFrames:
    """Render one task's frames at one size.

    Parameters
    ----------
    view : View
        Task and size.
    settings : sequence of str
        Settings to render it in.
    plan : Plan
        How many frames, and which.

    Returns
    -------
    TaskFrames
        In memory.
    """
    from samg_fast.envs.dmc import LiveTask, reference

    image, mask = reference(view.task, view.size, plan.reference_seed)
    shown: dict[str, tuple[Frame, Mask]] = {}
    for setting in settings:
        frames, truths = [], []
        backgrounds = plan.clips.get((view.size, setting)), plan.palettes.get(setting)
        for seed in plan.seeds(view.task):
            with LiveTask(view.task, setting, view.size, seed, *backgrounds) as live:
                live.reset()
                for _ in range(plan.frames):
                    live.skip(plan.stride - 1)
                    frames.append(live.step())
                    truths.append(live.mask)
        shown[setting] = (np.stack(frames), np.stack(truths))
    return TaskFrames(image, mask, shown, _further_references(view, plan))


def _further_references(view: View, plan: Plan) -> list[tuple[Frame, Mask]]:
    """Render all references of a task but the first: clean images of states that its episodes come to later on."""
    from samg_fast.envs.dmc import LiveTask

    pairs = []
    for number in range(1, plan.references):
        with LiveTask(view.task, "original", view.size, plan.reference_seed + number) as live:
            live.reset()
            live.skip(plan.steps // 2)
            pairs.append((live.step(), live.mask))
    return pairs
