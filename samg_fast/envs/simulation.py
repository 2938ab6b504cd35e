"""The simulations behind the tasks, dm_control's suite and gymnasium-robotics' Adroit hands, with one interface.

Nothing here renders or depends on a setting. `Simulation` is the interface that `samg_fast.envs.scene` uses.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from samg_fast.envs.opengl import ensure_gl, start_error
from samg_fast.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from samg_fast.envs.tasks import Task

__all__ = ["Outcome", "Simulation", "open_simulation"]

_HANDS: Final = {"door": "AdroitHandDoor-v1", "hammer": "AdroitHandHammer-v1", "pen": "AdroitHandPen-v1"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an action.

    Attributes
    ----------
    reward : float
    terminated : bool
        The task ended: no further reward is possible.
    truncated : bool
        The time limit was reached; the task itself did not end, so the value of the last state still counts.
    info : dict
        Further results: ``success``, a `numpy.bool_`, for the Adroit hands, nothing for the suite.
    """

    reward: float
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the episode has ended, for either reason."""
        return self.terminated or self.truncated


class Simulation(Protocol):
    """One task, simulated by MuJoCo. It can be copied by `copy.deepcopy` and pickled, during an episode too."""

    @property
    def environment(self) -> Any:
        """The simulation's own environment."""
        ...

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``."""
        ...

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData`` of the current state."""
        ...

    @property
    def action_spec(self) -> Any:
        """The ``dm_env.specs.BoundedArray`` of an action."""
        ...

    @property
    def timestep(self) -> float:
        """Seconds between two actions."""
        ...

    def reset(self) -> dict[str, Any]:
        """Start an episode; return what there is to say of its first state, with the keys of `Outcome.info`."""
        ...

    def step(self, action: NDArray[np.float64]) -> Outcome:
        """Act once."""
        ...

    def close(self) -> None:
        """Free the simulation."""
        ...


def open_simulation(task: Task, seed: int) -> Simulation:
    """Load a task.

    Parameters
    ----------
    task : Task
    seed : int
        Seed of the model and the initial states, 0 or more.

    Returns
    -------
    Simulation

    Raises
    ------
    MissingExtraError
        dm_control or gymnasium-robotics is not installed.
    RenderingError
        Off-screen rendering cannot start; the message says what was tried and which Debian packages to install.
    """
    return _Hand(task, seed) if task.domain == "adroit" else _Suite(task, seed)


class _Suite:
    """A task of dm_control's suite."""

    def __init__(self, task: Task, seed: int) -> None:
        with _import_errors("a live task", "dmc"):
            from dm_control import suite
        self.environment: Any = suite.load(
            task.domain, task.task, task_kwargs={"random": seed if seed < 2**32 else _words(seed)}
        )
        self.action_spec: Any = self.environment.action_spec()
        self.timestep = float(self.environment.control_timestep())

    @property
    def model(self) -> Any:
        return self.environment.physics.model.ptr

    @property
    def data(self) -> Any:
        return self.environment.physics.data.ptr

    def reset(self) -> dict[str, Any]:
        self.environment.reset()
        return {}

    def step(self, action: NDArray[np.float64]) -> Outcome:
        step = self.environment.step(action)
        # A last step with a discount above 0 means that the time limit was reached.
        terminated = bool(step.last() and step.discount == 0.0)
        return Outcome(float(step.reward), terminated, bool(step.last() and not terminated))

    def close(self) -> None:
        self.environment.close()


class _Hand:
    """An Adroit hand, with gymnasium-robotics' dense reward and its limit of 200 actions."""

    def __init__(self, task: Task, seed: int) -> None:
        with _import_errors("an Adroit task", "adroit"):
            import gymnasium
            import gymnasium_robotics
            from dm_env import specs
        gymnasium.register_envs(gymnasium_robotics)
        environment: Any = gymnasium.make(_HANDS[task.task], disable_env_checker=True)
        self.environment = environment
        space: Any = self.environment.action_space
        self.action_spec: Any = specs.BoundedArray(space.shape, float, space.low, space.high, name="action")
        self.timestep = float(environment.unwrapped.dt)
        self._seed: int | None = seed

    def __getstate__(self) -> dict[str, Any]:
        # What the hands' own class gives to a copy are the arguments for a new hand: take every layer as it is
        layers, layer = [], self.environment
        while True:
            layers.append((type(layer), _layer_values(layer)))
            if layer is layer.unwrapped:
                return {**vars(self), "environment": layers}
            layer = layer.env

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        environment: Any = None
        for kind, values in reversed(state["environment"]):
            layer = kind.__new__(kind)
            vars(layer).update(values)
            if environment is not None:
                layer.env = environment
            environment = layer
        self.environment = environment

    @property
    def model(self) -> Any:
        return self.environment.unwrapped.model

    @property
    def data(self) -> Any:
        return self.environment.unwrapped.data

    def reset(self) -> dict[str, Any]:
        self.environment.reset(seed=self._seed)
        self._seed = None  # later episodes continue the same random stream
        return {"success": np.False_}

    def step(self, action: NDArray[np.float64]) -> Outcome:
        _, reward, terminated, truncated, info = self.environment.step(action)
        return Outcome(float(reward), bool(terminated), bool(truncated), {"success": np.bool_(info["success"])})

    def close(self) -> None:
        self.environment.close()


def _layer_values(layer: Any) -> dict[str, Any]:
    """Return the attributes of a wrapper or an environment, without what it wraps and without OpenGL contexts."""
    values = {name: value for name, value in vars(layer).items() if name != "env"}
    if "mujoco_renderer" in values:
        renderer = values["mujoco_renderer"] = copy.copy(values["mujoco_renderer"])
        renderer.viewer, renderer._viewers = None, {}
    return values


def _words(seed: int) -> list[int]:
    """Divide a seed into words of 32 bits, the lowest first, as `numpy.random.RandomState` takes large ones."""
    return [seed >> shift & 0xFFFF_FFFF for shift in range(0, seed.bit_length(), 32)]


@contextmanager
def _import_errors(what: str, extra: str) -> Iterator[None]:
    """Choose an OpenGL for the imports in the block, and translate their errors into this package's."""
    ensure_gl()
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, extra) from error
    except Exception as error:  # whatever PyOpenGL or MuJoCo raise where a library is missing
        raise start_error(error) from error
