"""Random actions that show a body in many poses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samg_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SmoothPolicy"]


class SmoothPolicy:
    """Random actions that last a little: noise of which each actuator keeps half from one step to the next.

    White noise, at dm_control's rates, hardly moves a body; this shows it in many poses.

    Parameters
    ----------
    spec : dm_env.specs.BoundedArray
        The environment's ``action_spec()``; an unbounded actuator is kept within -1 and 1.
    random : numpy.random.Generator
        Where the noise comes from.
    """

    def __init__(self, spec: Any, random: np.random.Generator) -> None:
        low, high = np.broadcast_arrays(spec.minimum, spec.maximum, np.empty(spec.shape))[:2]
        self._low = np.where(np.isfinite(low), low, -1.0)
        self._high = np.where(np.isfinite(high), high, 1.0)
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

    def check(self, action: ArrayLike) -> NDArray[np.float64]:
        """Return somebody else's action as an array, or raise `InputError` if it cannot be one of this task."""
        try:
            array = np.asarray(action, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"action must be {self._state.size} numbers, it is {action!r}") from None
        if array.shape != self._state.shape:
            raise InputError(f"action has the shape {array.shape}, this task takes {self._state.shape}")
        if not np.isfinite(array).all():
            raise InputError("action is not finite")
        return array
