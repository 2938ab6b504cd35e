"""A task that acts and resets by itself: frames with ground truth to measure on, without an agent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.checks import check_whole
from samg_fast.envs.policy import SmoothPolicy
from samg_fast.envs.scene import FIRST_PROCEDURAL_SEED, Scene

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.tasks import Task

__all__ = ["FIRST_PROCEDURAL_SEED", "LiveTask", "reference"]

# Random stream of the actions within a seed; the scene's clips and colours have streams of their own.
_POLICY_STREAM = 1

# Added to a scene's seed, so that its reference image shows a state that none of its episodes starts in.
_REFERENCE_OFFSET = 500_000_000

Observation = tuple["NDArray[np.uint8]", "NDArray[np.bool_]"]


class LiveTask(Scene):
    """A `Scene` that takes smooth random actions when given none, and starts a new episode when one has ended.

    Parameters
    ----------
    task, setting, size, seed, clips, colors, action_repeat, camera
        As in `Scene`; the seed, which is at most 2**32 - 1, also determines the random actions.

    Raises
    ------
    InputError, MissingExtraError, RenderingError
        As in `Scene`.
    """

    _max_seed = 2**32 - 1  # `reference` counts on from it

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
        """Act ``action_repeat`` times, then render.

        Parameters
        ----------
        action : (n,) array_like, optional
            One number per actuator; by default a smooth random action.

        Returns
        -------
        ndarray
            The next frame, (H, W, 3) uint8 RGB. Before the first reset and after the last frame of an episode, this
            is the first frame of a new episode, and the action is ignored.

        Raises
        ------
        InputError
            The action does not have the task's shape, or is not finite.
        """
        self._act(action)
        return self.look()

    def skip(self, steps: int) -> None:
        """Take random steps without rendering, in a fraction of the time; the clip advances too.

        Parameters
        ----------
        steps : int
            Number of steps, 0 or more.
        """
        check_whole("steps", steps, 0)
        for _ in range(steps):
            self._act(None)

    def reference(self, seed: int | None = None) -> Observation:
        """Render a clean reference image of the same task through the same camera; the running episode is not affected.

        Parameters
        ----------
        seed : int
            Seed of the state to show; by default one that none of this task's episodes starts from.

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

    def begin(self) -> dict[str, Any]:
        """Start an episode without rendering; see `Scene.begin`."""
        self._ended = True  # stays so if anything below raises
        info = super().begin()
        self._policy.reset()
        self._ended = False
        return info

    def __enter__(self) -> LiveTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, seed: int) -> None:
        super()._open(seed)
        self._policy = SmoothPolicy(self.simulation.action_spec, np.random.default_rng([_POLICY_STREAM, self.seed]))
        self._ended = True

    def _act(self, action: ArrayLike | None) -> None:
        """Take one step without rendering."""
        # Checked even when an episode starts and the action is ignored: a wrong action should never pass.
        given = None if action is None else self.check_action(action)
        if self._ended:
            self.begin()
        else:
            self._ended = self.advance(self._policy() if given is None else given).over


def reference(task: str | Task, size: int | tuple[int, int] = 84, seed: int | None = 0) -> Observation:
    """Render the first frame of an episode in the original setting, as a reference image.

    Parameters
    ----------
    task : str or Task
        A task or its name.
    size : int or (int, int)
        Height and width in pixels, or one number for both.
    seed : int or None
        Seed of the initial state, 0 to 2**32 - 1; None shows another one with every call.

    Returns
    -------
    image : ndarray
        (H, W, 3) uint8 RGB.
    mask : ndarray
        (H, W) bool, its ground truth.

    Raises
    ------
    SamgError
        As in `LiveTask`.
    """
    with LiveTask(task, "original", size, seed) as live:
        return live.reset(), live.mask
