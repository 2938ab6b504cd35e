"""Actions: what a task takes, and random ones that show a body in many poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SmoothPolicy", "action_range", "check_action"]

# What MuJoCo takes for infinite, and dm_control gives as the bound of an actuator without one.
_NO_LIMIT = 1e10


class SmoothPolicy:
    """Random actions that last a little: noise of which each actuator keeps half from one step to the next.

    White noise, at dm_control's rates, hardly moves a body; this shows it in many poses.

    Parameters
    ----------
    spec : dm_env.specs.BoundedArray
        The environment's ``action_spec()``.
    random : numpy.random.Generator
        Where the noise comes from.
    """

    def __init__(self, spec: Any, random: np.random.Generator) -> None:
        self._low, self._high = action_range(spec)
        self._random = random
        self._state = np.zeros(spec.shape)

    def reset(self) -> None:
        """Start from the middle again."""
        self._state = np.zeros_like(self._state)

    def __call__(self) -> NDArray[np.float64]:
        """Return the next action."""
        # Deviation 0.58 of the way to a bound, and half of it kept from step to step: longer or stronger pushes drive a
        # cart out of the picture, shorter ones move nothing.
        self._state = 0.5 * self._state + 0.5 * self._random.standard_normal(self._state.shape)
        unit = (np.clip(self._state, -1.0, 1.0) + 1.0) / 2.0
        return np.asarray(self._low + unit * (self._high - self._low), dtype=np.float64)


def action_range(spec: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the actuators of an ``action_spec()`` take, lowest and highest, each (n,) float64.

    An actuator without a limit takes anything; it is kept within -1 and 1.
    """
    low, high = np.broadcast_arrays(spec.minimum, spec.maximum, np.empty(spec.shape))[:2]
    limited = (np.abs(low) < _NO_LIMIT) & (np.abs(high) < _NO_LIMIT)
    return np.where(limited, low, -1.0), np.where(limited, high, 1.0)


def check_action(action: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an action as an array, or raise `InputError` if it cannot be one of this shape."""
    try:
        array = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"action must be {shape[0]} numbers, it is {action!r}") from None
    if array.shape != shape:
        raise InputError(f"action has the shape {array.shape}, this task takes {shape}")
    if not np.isfinite(array).all():
        raise InputError("action is not finite")
    return array
