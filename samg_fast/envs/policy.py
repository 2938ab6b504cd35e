"""Actions: the range a task accepts, and random actions that show a body in many poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SmoothPolicy", "action_range", "check_action"]

# MuJoCo's infinity, which dm_control reports as the bound of an unlimited actuator.
_NO_LIMIT = 1e10


class SmoothPolicy:
    """Smooth random actions: noise of which each actuator keeps half from one step to the next.

    At dm_control's control rates white noise hardly moves a body; smooth noise shows it in many poses.

    Parameters
    ----------
    spec : dm_env.specs.BoundedArray
        The environment's ``action_spec()``.
    random : numpy.random.Generator
        Source of the noise.
    """

    def __init__(self, spec: Any, random: np.random.Generator) -> None:
        self._low, self._high = action_range(spec)
        self._random = random
        self._state = np.zeros(spec.shape)

    def reset(self) -> None:
        """Return to the middle of every actuator's range."""
        self._state = np.zeros_like(self._state)

    def __call__(self) -> NDArray[np.float64]:
        """Return the next action."""
        # The result has a standard deviation of 0.58 on the range -1 to 1. Longer or stronger pushes drive a cart out
        # of the image; shorter ones move nothing.
        self._state = 0.5 * self._state + 0.5 * self._random.standard_normal(self._state.shape)
        unit = (np.clip(self._state, -1.0, 1.0) + 1.0) / 2.0
        return np.asarray(self._low + unit * (self._high - self._low), dtype=np.float64)


def action_range(spec: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest actions of an ``action_spec()``, each (n,) float64.

    An actuator without a limit accepts any value; its range is -1 to 1 here.
    """
    low, high = np.broadcast_arrays(spec.minimum, spec.maximum, np.empty(spec.shape))[:2]
    limited = (np.abs(low) < _NO_LIMIT) & (np.abs(high) < _NO_LIMIT)
    return np.where(limited, low, -1.0), np.where(limited, high, 1.0)


def check_action(action: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an action as a float64 array; raise `InputError` if it does not have this shape or is not finite."""
    try:
        array = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"action must be {shape[0]} numbers, it is {action!r}") from None
    if array.shape != shape:
        raise InputError(f"action has the shape {array.shape}, this task takes {shape}")
    if not np.isfinite(array).all():
        raise InputError("action is not finite")
    return array
