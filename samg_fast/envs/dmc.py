"""A task that acts and starts over by itself: frames with ground truth to measure on, without an agent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from samg_fast.checks import check_whole
from samg_fast.envs.policy import SmoothPolicy
from samg_fast.envs.scene import FIRST_PROCEDURAL_SEED, Scene

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.tasks import Task

__all__ = ["FIRST_PROCEDURAL_SEED", "LiveTask", "reference"]

# The random stream of the actions, among those of one seed; the scene's clips and colours have their own.
_POLICY = 1

# reference() looks at a state that the episodes of the same seed do not start in.
_REFERENCE_OFFSET = 500_000_000

Observation = tuple["NDArray[np.uint8]", "NDArray[np.bool_]"]


class LiveTask(Scene):
    """A `Scene` that takes smooth random actions where it is given none, and begins again after an episode's end.

    Parameters
    ----------
    task, setting, size, seed, clips, colors, action_repeat, camera
        As of `Scene`; the seed is of the random actions too.

    Raises
    ------
    InputError, MissingExtraError, RenderingError
        As `Scene` does.
    """

    @property
    def ended(self) -> bool:
        """Whether the next `step` starts a new episode."""
        return self._ended

    def reset(self) -> NDArray[np.uint8]:
        """Start a new episode.

        Returns
        -------
        ndarray
            Its first frame, (H, W, 3) uint8 RGB.
        """
        self.begin()
        return self.look()

    def step(self, action: ArrayLike | None = None) -> NDArray[np.uint8]:
        """Act, ``action_repeat`` times, and look.

        Parameters
        ----------
        action : (n,) array_like, optional
            One number per actuator; by default a smooth random action.

        Returns
        -------
        ndarray
            The next frame, (H, W, 3) uint8 RGB. After the last frame of an episode, and before the first reset, it
            is the first frame of a new one, and the action is not used.

        Raises
        ------
        InputError
            The action has another shape than the task's, or is not finite.
        """
        self._act(action)
        return self.look()

    def skip(self, steps: int) -> None:
        """Take random steps without looking, which takes a fraction of the time; the clip moves on too.

        Parameters
        ----------
        steps : int
            How many; 0 does nothing.
        """
        check_whole("steps", steps, 0)
        for _ in range(steps):
            self._act(None)

    def reference(self, seed: int | None = None) -> Observation:
        """Picture the same task, through the same camera, once and cleanly, leaving this one as it is.

        Parameters
        ----------
        seed : int
            Of the state to see; by default one that differs from the episodes' of this task.

        Returns
        -------
        image : ndarray
            (H, W, 3) uint8 RGB in the original setting.
        mask : ndarray
            (H, W) bool, its ground truth.
        """
        if seed is None:
            seed = (self.seed + _REFERENCE_OFFSET) % 2**32
        return reference(replace(self.task, camera=self.camera), self.size, seed)

    def begin(self) -> None:
        """Start an episode without looking."""
        self._ended = True  # also where what follows fails
        super().begin()
        self._policy.reset()
        self._ended = False

    def __enter__(self) -> LiveTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, seed: int) -> None:
        super()._open(seed)
        self._policy = SmoothPolicy(self.simulation.action_spec, np.random.default_rng([_POLICY, self.seed]))
        self._ended = True

    def _act(self, action: ArrayLike | None) -> None:
        """Take one step without looking."""
        # Also where the action goes unused: a wrong one should not pass because an episode happens to start.
        given = None if action is None else self.check_action(action)
        if self._ended:
            self.begin()
        else:
            self._ended = self.advance(self._policy() if given is None else given).over


def reference(task: str | Task, size: int | tuple[int, int] = 84, seed: int = 0) -> Observation:
    """Render one picture of a task in the original setting: the first frame of an episode.

    Parameters
    ----------
    task : str or Task
        A task or its name.
    size : int or (int, int)
        Height and width in pixels, or the one number for both.
    seed : int
        Of the initial state.

    Returns
    -------
    image : ndarray
        (H, W, 3) uint8 RGB.
    mask : ndarray
        (H, W) bool, its ground truth.

    Raises
    ------
    SamgError
        As `LiveTask` does.
    """
    with LiveTask(task, "original", size, seed) as live:
        return live.reset(), live.mask
