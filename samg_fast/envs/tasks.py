"""Task names, ``domain_task``, of dm_control's suite and of the Adroit hands, with the camera of each.

Nothing here imports a simulation, so names can be checked, completed and listed on a machine that cannot render.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from samg_fast.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ADROIT", "EIGHT", "TASKS", "UNSEEN", "Task", "find_task", "nearest"]

# dm_control.suite.ALL_TASKS of the pinned version; a test compares the two.
_SUITE: Final[dict[str, tuple[str, ...]]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}

# The quadruped's first two cameras look from far away or from straight behind; all benchmarks use the third.
_CAMERAS: Final[dict[str, int]] = {"quadruped": 2}


@dataclass(frozen=True, slots=True)
class Task:
    """One control task and how it is rendered.

    Parameters
    ----------
    domain, task : str
        The two arguments of ``dm_control.suite.load``; or ``"adroit"`` and one of gymnasium-robotics' hand tasks.
    camera : int or str
        Index or name of the model's camera that renders the observation.
    floor : tuple of str
        Names of bodies that count as floor, besides the planes of the world.
    target : tuple of str
        Names of bodies that belong to the ground truth mask, besides those that move relative to the world.
    """

    domain: str
    task: str
    camera: int | str = 0
    floor: tuple[str, ...] = ()
    target: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``domain_task``, the task's name everywhere in this package."""
        return f"{self.domain}_{self.task}"


# The models provide vil_camera for learning from images. The pen task's forearm has no joint and its target pen stands
# still, but the mask must contain both: the whole hand, and the goal. The table counts as floor because in video_hard
# it would otherwise hide much of the clip.
_HANDS: Final = (
    Task("adroit", "door", "vil_camera", floor=("table",)),
    Task("adroit", "hammer", "vil_camera", floor=("table",)),
    Task("adroit", "pen", "vil_camera", floor=("table",), target=("forearm", "target")),
)

TASKS: Final[Mapping[str, Task]] = MappingProxyType(
    {
        f"{domain}_{task}": Task(domain, task, _CAMERAS.get(domain, 0))
        for domain, tasks in _SUITE.items()
        for task in tasks
    }
    | {hand.name: hand for hand in _HANDS}
)
"""Every task by name: dm_control's suite in alphabetical order of the domains, then the Adroit hands."""

ADROIT: Final[tuple[str, ...]] = tuple(hand.name for hand in _HANDS)
"""The three Adroit tasks of the SAM-G paper (arXiv 2312.17116)."""

EIGHT: Final[tuple[str, ...]] = (
    "walker_walk",
    "walker_stand",
    "cartpole_swingup",
    "ball_in_cup_catch",
    "finger_spin",
    "cheetah_run",
    "hopper_stand",
    "quadruped_walk",
)
"""The eight DMControl tasks of the SAM-G paper (arXiv 2312.17116)."""

UNSEEN: Final[tuple[str, ...]] = ("reacher_easy", "pendulum_swingup", "acrobot_swingup", "swimmer_swimmer6")
"""Four tasks from domains that the shipped bundle never saw in training."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Suggest the names most similar to a wrong one.

    Parameters
    ----------
    name : str
        The wrong name.
    names : iterable of str
        The valid names.

    Returns
    -------
    str
        ``"did you mean a, b or c?"`` with at most three names, or ``"there are a, b, c"`` with all of them if none is
        similar.
    """
    names = list(names)
    folded = {each.casefold(): each for each in names}
    close = [folded[each] for each in get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.5)]
    if not close:
        return f"there are {', '.join(names)}"
    *head, last = close
    return f"did you mean {', '.join(head)} or {last}?" if head else f"did you mean {last}?"


def find_task(name: str) -> Task:
    """Look a task up by its name.

    Parameters
    ----------
    name : str
        ``domain_task``, for example ``"ball_in_cup_catch"``.

    Returns
    -------
    Task
        The task with its camera.

    Raises
    ------
    InputError
        No task has that name; the message suggests similar names.
    """
    try:
        return TASKS[name]
    except (KeyError, TypeError):
        raise InputError(f"there is no task {name!r}: {nearest(name, TASKS)}") from None
