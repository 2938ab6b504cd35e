"""The figures of a control loop."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from samg_fast.control.perception import FrameCounts
from samg_fast.control.rate import Clock, FixedRate
from samg_fast.metrics import percentiles

__all__ = ["Recorder", "Report"]

_KEPT = 100_000  # 40 minutes at 40 Hz: a loop that runs for days must not grow


@dataclass(frozen=True)
class Report:
    """How a control loop went.

    Parameters
    ----------
    hz : float
        The rate that was asked for.
    rate : float or None
        The rate that was reached, from the first tick to the last; None before the second.
    ticks : int
        How often the loop acted.
    blind : int
        Ticks before the first mask.
    met, missed : int
        Deadlines. One that passed while the loop was busy with an earlier period is missed too.
    ages : dict of str to float, or None
        Milliseconds from a frame's taking to the use of its mask, as ``"p50"``, ``"p95"``, ``"p99"`` and ``"max"``,
        over the last 100,000 uses; None before the first.
    source : dict of str to float, or None
        Milliseconds that the source took for a frame, in the same way; None without one.
    cpu : float or None
        Processor time of the whole process per second, so 1 is one core at work; None before the second tick.
    frames : FrameCounts
    """

    hz: float
    rate: float | None
    ticks: int
    blind: int
    met: int
    missed: int
    ages: dict[str, float] | None
    source: dict[str, float] | None
    cpu: float | None
    frames: FrameCounts

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return {
            "hz": self.hz,
            "achieved_hz": None if self.rate is None else round(self.rate, 3),
            "ticks": self.ticks,
            "ticks_without_mask": self.blind,
            "deadlines": {"met": self.met, "missed": self.missed},
            "age_ms": _rounded(self.ages),
            "source_ms": _rounded(self.source),
            "cpu_cores": None if self.cpu is None else round(self.cpu, 3),
            "frames": asdict(self.frames),
        }


class Recorder:
    """Keeps what a `Report` is made of while a loop runs.

    Parameters
    ----------
    rate : FixedRate
    clock : Clock

    Attributes
    ----------
    ticks, blind : int
        As in `Report`.
    """

    def __init__(self, rate: FixedRate, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._ages: deque[float] = deque(maxlen=_KEPT)
        self._source: deque[float] = deque(maxlen=_KEPT)
        self._first = self._last = (0.0, 0.0)
        self._turns = -1
        self.ticks = self.blind = 0

    def mark(self) -> None:
        """Note the time; one turn of the loop lies between two calls."""
        self._last = self._clock.now(), self._clock.cpu()
        if self._turns < 0:
            self._first = self._last
        self._turns += 1

    def look(self, seconds: float) -> None:
        """Note how long the source took for a frame."""
        self._source.append(seconds)

    def use(self, age: float) -> None:
        """Note that a mask is used, so many seconds old."""
        self._ages.append(age)

    def report(self, hz: float, frames: FrameCounts) -> Report:
        """Return the figures so far."""
        elapsed, cpu = (last - first for first, last in zip(self._first, self._last, strict=True))
        return Report(
            hz=hz,
            rate=self._turns / elapsed if elapsed > 0 else None,
            ticks=self.ticks,
            blind=self.blind,
            met=self._rate.met,
            missed=self._rate.missed,
            ages=_percentiles(self._ages),
            source=_percentiles(self._source),
            cpu=cpu / elapsed if elapsed > 0 else None,
            frames=frames,
        )


def _percentiles(seconds: deque[float]) -> dict[str, float] | None:
    """Return percentiles and the maximum in milliseconds."""
    if not seconds:
        return None
    values = {**percentiles(tuple(seconds), 50, 95, 99), "max": max(seconds)}
    return {name: value * 1e3 for name, value in values.items()}


def _rounded(figures: dict[str, float] | None) -> dict[str, float] | None:
    return None if figures is None else {name: round(value, 3) for name, value in figures.items()}
