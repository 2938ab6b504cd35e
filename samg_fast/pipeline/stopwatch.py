"""The time of each stage of a frame."""

from __future__ import annotations

import time

__all__ = ["STAGES", "Stopwatch"]

STAGES = ("preprocess", "encoder", "features", "similarity", "points", "decodes", "resize")
"""The stages of a frame, in the order of their first lap."""


class Stopwatch:
    """Adds up the time of each stage; it starts when it is created."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._start = self._last = time.perf_counter()
        self._left_out = 0.0

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def skip(self) -> None:
        """Leave the time since the last lap out of everything."""
        now = time.perf_counter()
        self._left_out += now - self._last
        self._last = now

    def milliseconds(self, frames: int) -> dict[str, float]:
        """Milliseconds per frame of each stage and of the ``"total"`` until now."""
        total = time.perf_counter() - self._start - self._left_out
        return {stage: value * 1e3 / frames for stage, value in (*self._seconds.items(), ("total", total))}
