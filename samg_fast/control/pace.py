"""A fixed rate by absolute deadlines, and the clock it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator

__all__ = ["Clock", "Pace"]


class Clock:
    """The system's time, in seconds; a simulation or a test gives the controller one of its own."""

    def now(self) -> float:
        """Return the time since some fixed moment; it never goes back."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def cpu(self) -> float:
        """Return the processor time that this process has used so far, in all its threads."""
        return time.process_time()


class Pace:
    """Numbers of the periods of a fixed rate, each given when its period begins.

    Period k begins k / hz after the first, however long earlier ones took, so that nothing drifts. The deadline of its
    work is the next one's beginning. Where it is missed, the period that runs by then begins at once, late; those that
    have passed wholly are left out.

    Parameters
    ----------
    hz : float
        Periods per second.
    clock : Clock

    Attributes
    ----------
    met, missed : int
        Deadlines so far: every one is counted once, those of periods that were left out among the missed.
    """

    def __init__(self, hz: float, clock: Clock) -> None:
        self._hz, self._clock = hz, clock
        self.met = self.missed = 0

    def __iter__(self) -> Iterator[int]:
        start, number = self._clock.now(), 0
        while True:
            yield number
            periods = (self._clock.now() - start) * self._hz
            if periods <= number + 1:
                self.met += 1
                number += 1
            else:
                self.missed += int(periods) - number
                number = int(periods)
            ahead = start + number / self._hz - self._clock.now()
            if ahead > 0:
                self._clock.sleep(ahead)
