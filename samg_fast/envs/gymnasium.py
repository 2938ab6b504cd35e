"""A task as a gymnasium environment with image observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.envs.policy import action_range
from samg_fast.errors import MissingExtraError, SamgError

try:
    import gymnasium
    from gymnasium.spaces import Box
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.envs.gymnasium", "gymnasium") from error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.scene import Scene

__all__ = ["PixelTask"]


class PixelTask(gymnasium.Env[Any, Any]):
    """A `Scene` with gymnasium's interface.

    Observations are (H, W, 3) uint8 RGB. Actions from -1 to 1 are scaled to each actuator's range; an actuator without
    a range takes them unscaled. Reaching the time limit is a truncation; only the task itself terminates an episode.
    `render` returns the latest observation, before any wrapper changes it.

    Parameters
    ----------
    scene : Scene
        Closed with the environment.
    ground_truth : bool
        Whether ``info["mask"]`` holds the exact mask of every observation, (H, W) bool.

    Attributes
    ----------
    scene : Scene
        Holds the latest mask and render, and the simulation.
    """

    def __init__(self, scene: Scene, *, ground_truth: bool = False) -> None:
        self.scene = scene
        self._ground_truth = ground_truth
        self._low, self._high = action_range(scene.simulation.action_spec)
        self.observation_space = Box(0, 255, (*scene.size, 3), np.uint8)
        self.action_space = Box(-1.0, 1.0, self._low.shape, np.float32)
        rate = 1.0 / (scene.simulation.timestep * scene.action_repeat)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": max(1, round(rate))}
        self.render_mode = "rgb_array"
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode.

        Parameters
        ----------
        seed : int, optional
            Returns the environment to the state of a new one with this seed, 0 or more; without one, its random numbers
            go on.
        options : dict, optional
            Ignored: there are no options.

        Returns
        -------
        observation : (H, W, 3) uint8
        info : dict
            ``success`` of the Adroit hands, False; ``mask`` with `ground_truth`.
        """
        if seed is not None:
            self.scene.reseed(seed)
            seed = self.scene.seed  # gymnasium takes Python's own integers alone
        super().reset(seed=seed, options=options)
        self._running = False  # stays so if anything below raises
        result = self._observe(self.scene.begin())
        self._running = True
        return result

    def step(self, action: ArrayLike) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Repeat an action as often as the scene says.

        Parameters
        ----------
        action : (n,) array_like
            One number from -1 to 1 per actuator.

        Returns
        -------
        observation : (H, W, 3) uint8
        reward : float
            Sum over the repeats.
        terminated, truncated : bool
        info : dict
            ``success`` of the Adroit hands, a `numpy.bool_`; ``mask`` with `ground_truth`.

        Raises
        ------
        InputError
            The action has the wrong shape, or is not finite.
        SamgError
            No episode is running.
        """
        unit = self.scene.check_action(action)
        if not self._running:
            raise SamgError(f"{self.scene.task.name} is in no episode: call reset() first")
        outcome = self.scene.advance(self._low + (unit + 1.0) / 2.0 * (self._high - self._low))
        self._running = not outcome.over
        frame, info = self._observe(dict(outcome.info))
        return frame, outcome.reward, outcome.terminated, outcome.truncated, info

    def render(self) -> NDArray[np.uint8]:
        """Return the latest observation, (H, W, 3) uint8."""
        return self.scene.frame.copy()

    def close(self) -> None:
        """Free the OpenGL context and the simulation; closing twice does nothing."""
        self.scene.close()

    def _observe(self, info: dict[str, Any]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        frame = self.scene.look()
        if self._ground_truth:
            info["mask"] = self.scene.mask
        return frame, info
