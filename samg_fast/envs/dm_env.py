"""A task as a dm_env environment whose observations are pictures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.errors import InputError, MissingExtraError

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise MissingExtraError("samg_fast.envs.dm_env", "dmc") from error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from samg_fast.envs.scene import Scene

__all__ = ["FrameStack", "PixelTask"]


class PixelTask(dm_env.Environment):  # type: ignore[misc]  # dm_env has no types
    """A `Scene` with dm_env's interface.

    An observation is a dictionary with ``pixels``, (H, W, 3) uint8 RGB, as dm_control's pixel wrapper gives them.
    Actions are those of the task's own ``action_spec()``. The last step of an episode has the discount 0 where the task
    itself ended, and 1 where only the time did; a step after it begins the next episode.

    Parameters
    ----------
    scene : Scene
        Closed with the environment.
    ground_truth : bool
        Whether an observation has a ``mask`` too, the exact one, (H, W) bool.

    Attributes
    ----------
    scene : Scene
        What is seen: the latest mask and render, the simulation inside.
    """

    def __init__(self, scene: Scene, *, ground_truth: bool = False) -> None:
        self.scene = scene
        self._ground_truth = ground_truth
        self._running = False

    def reset(self) -> Any:
        """Start an episode; returns its first ``TimeStep``."""
        self._running = False  # until it all went well
        self.scene.begin()
        first = dm_env.restart(self._look())
        self._running = True
        return first

    def step(self, action: ArrayLike) -> Any:
        """Act, as often as the scene repeats an action; returns a ``TimeStep`` with the sum of the rewards.

        Raises
        ------
        InputError
            The action has another shape, or is not finite.
        """
        checked = self.scene.check_action(action)
        if not self._running:
            return self.reset()
        outcome = self.scene.advance(checked)
        self._running = not outcome.over
        if outcome.terminated:
            return dm_env.termination(outcome.reward, self._look())
        if outcome.truncated:
            return dm_env.truncation(outcome.reward, self._look())
        return dm_env.transition(outcome.reward, self._look())

    def observation_spec(self) -> Any:
        """Return the specs of the observations, by name."""
        pixels = specs.BoundedArray((*self.scene.size, 3), np.uint8, 0, 255, name="pixels")
        return {"pixels": pixels} | ({"mask": specs.Array(self.scene.size, bool, "mask")} if self._ground_truth else {})

    def action_spec(self) -> Any:
        """Return the task's own spec of its actions."""
        return self.scene.simulation.action_spec

    def close(self) -> None:
        """Free the OpenGL context and the simulation; closing twice does nothing."""
        self.scene.close()

    def _look(self) -> dict[str, NDArray[Any]]:
        frame = self.scene.look()
        return {"pixels": frame, "mask": self.scene.mask} if self._ground_truth else {"pixels": frame}


class FrameStack(dm_env.Environment):  # type: ignore[misc]
    """An environment whose pictures are the latest few together; see `samg_fast.envs.stack`.

    Parameters
    ----------
    env : dm_env.Environment
    frames : int
        How many.
    pixels_key : str
        Which of the observations are the pictures, (H, W, C) uint8; the others stay as they are.

    Raises
    ------
    InputError
        There are no such pictures; says what there is.
    """

    def __init__(self, env: Any, frames: int, pixels_key: str = "pixels") -> None:
        observations = env.observation_spec()
        if not isinstance(observations, dict) or pixels_key not in observations:
            there = ", ".join(observations) if isinstance(observations, dict) else observations
            raise InputError(f"pixels_key: there is no observation {pixels_key!r}, there are {there}")
        spec = observations[pixels_key]
        if spec.dtype != np.uint8 or len(spec.shape) != 3:
            raise InputError(f"env: {pixels_key} must be (H, W, C) uint8 pictures to be stacked, they are {spec}")
        self._env, self._key, self._count, self._shape = env, pixels_key, frames, spec.shape
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=frames)

    def reset(self) -> Any:
        """Start an episode, all of whose pictures are the first one."""
        return self._stacked(self._env.reset())

    def step(self, action: Any) -> Any:
        """Act; the oldest picture makes way for the newest."""
        return self._stacked(self._env.step(action))

    def observation_spec(self) -> Any:
        """Return the inner specs, with (frames * C, H, W) pictures."""
        height, width, channels = self._shape
        shape = (self._count * channels, height, width)
        return {**self._env.observation_spec(), self._key: specs.BoundedArray(shape, np.uint8, 0, 255, name=self._key)}

    def action_spec(self) -> Any:
        """Return the inner spec."""
        return self._env.action_spec()

    def reward_spec(self) -> Any:
        """Return the inner spec."""
        return self._env.reward_spec()

    def discount_spec(self) -> Any:
        """Return the inner spec."""
        return self._env.discount_spec()

    def close(self) -> None:
        """Close the inner environment."""
        self._env.close()

    def __getattr__(self, name: str) -> Any:
        if name == "_env":  # before __init__, as where an environment is copied
            raise AttributeError(name)
        return getattr(self._env, name)

    def _stacked(self, step: Any) -> Any:
        picture = np.ascontiguousarray(np.moveaxis(step.observation[self._key], -1, 0))
        if step.first():
            self._frames.extend([picture] * self._count)
        else:
            self._frames.append(picture)
        return step._replace(observation={**step.observation, self._key: np.concatenate(self._frames)})
