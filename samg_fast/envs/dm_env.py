"""A task as a dm_env environment with image observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.errors import MissingExtraError

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.envs.dm_env", "dmc") from error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.scene import Scene

__all__ = ["PixelTask"]


class PixelTask(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """A `Scene` with dm_env's interface.

    An observation is a dictionary with ``pixels``, (H, W, 3) uint8 RGB, as in dm_control's pixel wrapper. Actions are
    those of the task's own ``action_spec()``. The last step of an episode has discount 0 if the task terminated, and
    1 if the time limit was reached; the next call of `step` starts the next episode.

    Parameters
    ----------
    scene : Scene
        Closed with the environment.
    ground_truth : bool
        Whether an observation also has ``mask``, the exact mask, (H, W) bool.

    Attributes
    ----------
    scene : Scene
        Holds the latest mask and render, and the simulation.
    """

    def __init__(self, scene: Scene, *, ground_truth: bool = False) -> None:
        self.scene = scene
        self._ground_truth = ground_truth
        self._running = False

    def reset(self) -> Any:
        """Start an episode and return its first ``TimeStep``."""
        self._running = False  # stays so if anything below raises
        self.scene.begin()
        first = dm_env.restart(self._observe())
        self._running = True
        return first

    def step(self, action: ArrayLike) -> Any:
        """Repeat an action as often as the scene says; return a ``TimeStep`` with the sum of the rewards.

        Raises
        ------
        InputError
            The action has the wrong shape, or is not finite.
        """
        checked = self.scene.check_action(action)
        if not self._running:
            return self.reset()
        outcome = self.scene.advance(checked)
        self._running = not outcome.over
        if outcome.terminated:
            return dm_env.termination(outcome.reward, self._observe())
        if outcome.truncated:
            return dm_env.truncation(outcome.reward, self._observe())
        return dm_env.transition(outcome.reward, self._observe())

    def observation_spec(self) -> Any:
        """Return the specs of the observations, by name."""
        pixels = specs.BoundedArray((*self.scene.size, 3), np.uint8, 0, 255, name="pixels")
        return {"pixels": pixels} | ({"mask": specs.Array(self.scene.size, bool, "mask")} if self._ground_truth else {})

    def action_spec(self) -> Any:
        """Return the task's own action spec."""
        return self.scene.simulation.action_spec

    @property
    def physics(self) -> Any:
        """dm_control's physics; only tasks of the suite have it, Adroit hands do not."""
        return self.scene.environment.physics

    def render(self) -> NDArray[np.uint8]:
        """Return the latest frame, (H, W, 3) uint8, before any wrapper changes it."""
        return self.scene.frame.copy()

    def close(self) -> None:
        """Free the OpenGL context and the simulation; closing twice does nothing."""
        self.scene.close()

    def _observe(self) -> dict[str, NDArray[Any]]:
        frame = self.scene.look()
        return {"pixels": frame, "mask": self.scene.mask} if self._ground_truth else {"pixels": frame}
