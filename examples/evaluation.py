"""Evaluation: episodes played without exploration, and what a setting's evaluation comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Act = Callable[[Array], Array]


def evaluate(env: Any, act: Act, episodes: int, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Play episodes; return the mean and standard deviation of their returns, and all of them.

    For tasks that can succeed, Adroit's hands, ``success`` is the share of episodes that did. If `stop` says that
    Ctrl-C was pressed meanwhile, nothing was measured, and None is returned.
    """
    played = [play(env, act, stop) for _ in range(episodes) if not stop()]
    if stop():
        return None
    returns = [total for total, _ in played]
    figures: dict[str, Any] = {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
    if played[0][1] is not None:
        figures["success"] = float(np.mean([succeeded for _, succeeded in played]))
    return {**figures, "returns": returns}


def play(env: Any, act: Act, stop: Callable[[], bool]) -> tuple[float, bool | None]:
    """Play an episode; return its return and, if the task can succeed, whether it did."""
    (observation, _), total, succeeded, over = env.reset(), 0.0, None, False
    while not over and not stop():
        observation, reward, terminated, truncated, info = env.step(act(observation))
        total, over = total + reward, terminated or truncated
        if "success" in info:
            succeeded = bool(succeeded or info["success"])
    return total, succeeded
