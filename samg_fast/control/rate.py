"""A fixed rate by absolute deadlines, and the clock it reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from math import inf

__all__ = ["Clock", "FixedRate"]


class Clock:
    """The system's time, in seconds; a simulation or a test gives the controller one of its own."""

    def now(self) -> float:
        """Return the time since some fixed moment; it never goes back."""
        return time.perf_counter()

    def sleep(self, seconds: float, ended: threading.Event) -> None:
        """Let some seconds pass, or fewer where `ended` is set before."""
        ended.wait(seconds)

    def cpu(self) -> float:
        """Return the processor time that this process has used so far, in all its threads."""
        return time.process_time()


class FixedRate:
    """Periods at a fixed rate: iterating yields the number of each when it begins.

    Period k begins k / hz after the first, however long earlier ones took, so that nothing drifts. The deadline of its
    work is the next one's beginning. Where it is missed, the period that runs by then begins at once, late; those
    that have passed are skipped.

    Parameters
    ----------
    hz : float
        Periods per second.
    clock : Clock
    ended : threading.Event
        Once it is set, no period follows, and a wait for one ends.
    periods : float
        How many there are.

    Attributes
    ----------
    met, missed : int
        Deadlines so far: every one is counted once, those of skipped periods among the missed.
    """

    def __init__(self, hz: float, clock: Clock, ended: threading.Event, periods: float = inf) -> None:
        self._hz, self._clock, self._ended, self._periods = hz, clock, ended, periods
        self.met = self.missed = 0

    def __iter__(self) -> Iterator[int]:
        start, number = self._clock.now(), 0
        while number < self._periods and not self._ended.is_set():
            yield number
            passed = (self._clock.now() - start) * self._hz
            if passed <= number + 1:
                self.met += 1
                number += 1
            else:
                reached = int(min(passed, self._periods))
                self.missed += reached - number
                number = reached
            self._sleep_until(start + number / self._hz)

    def _sleep_until(self, moment: float) -> None:
        while (ahead := moment - self._clock.now()) > 0 and not self._ended.is_set():
            self._clock.sleep(ahead, self._ended)
