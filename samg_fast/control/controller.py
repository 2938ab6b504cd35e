"""The control loop: fixed rate, newest mask, nothing waited for that was not asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any

from samg_fast.checks import Frame, check_number, describe
from samg_fast.control.perception import FrameCounts, Observation, Perception
from samg_fast.control.rate import Clock, FixedRate
from samg_fast.control.report import Recorder, Report
from samg_fast.errors import InputTypeError, PerceptionError, StaleError, StoppedError

if TYPE_CHECKING:
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["Controller", "Tick"]

_END: Any = object()


@dataclass(frozen=True, eq=False)
class Tick:
    """One turn of the control loop.

    Parameters
    ----------
    number : int
        Which period it is; a gap to the tick before means that periods passed while the loop was busy.
    observation : Observation or None
        The newest mask; None until there is a first one.
    """

    number: int
    observation: Observation | None


class Controller:
    """Perception on a thread of its own, beside a control loop at a fixed rate.

    Frames go into a mailbox with one slot: while one is being segmented, only the newest of those that come is kept.
    The control loop takes the newest mask there is, and goes on. It runs on the thread that iterates over `ticks`, and
    so does `source`: what is bound to a thread, as OpenGL is, may be used in both. Use it as a context manager, or
    `start` and `stop` it.

    Parameters
    ----------
    segmenter : Segmenter
    target : Target, optional
        Made with the segmenter's bundle. A fitted bundle needs none.
    source : iterable of (H, W, 3) uint8 array or None, optional
        Asked for a frame with every tick; None stands for no new one, and its end ends `ticks`. A generator that steps
        an environment is one. Without a source, frames come by `offer`, as from a camera's callback.
    hz : float
        Ticks per second.
    wait : float
        Seconds that a tick waits at most for the mask of its own frame, from 0 to a period: a younger mask, and less
        time for the action.
    max_age : float, optional
        Seconds: where the newest mask is older, as when a camera has died, or where none has come for so long since the
        loop began, `newest` and `ticks` raise `StaleError`. By default they never do.
    clock : Clock, optional
        Where time comes from.

    Raises
    ------
    InputTypeError, InputError
        `source` is not iterable, a number is out of its range, or `target` is none.
    BundleError
        The target was made with another bundle.

    Notes
    -----
    What is raised while segmenting ends perception, and every call from then on raises `PerceptionError` with the
    original as its cause.

    A program that ends without `stop` stops perception first. A process that is forked from this one has no perception:
    every call there raises `StoppedError`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        target: Target | None = None,
        source: Iterable[Frame | None] | None = None,
        *,
        hz: float = 40.0,
        wait: float = 0.0,
        max_age: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if source is not None and not isinstance(source, Iterable):
            raise InputTypeError(
                "source must be an iterable of frames, such as a generator that steps an environment, "
                f"not {describe(source)}: frames of a callback go to offer()"
            )
        segmenter.check_target(target)
        self._hz = check_number("hz", hz, "above 0", lambda hz: hz > 0)
        period = 1 / self._hz
        wanted = f"from 0 to the period of {period:g} s"
        self._wait = check_number("wait", wait, wanted, lambda wait: 0 <= wait <= period)
        if max_age is not None:
            max_age = check_number("max_age", max_age, "above 0, or None", lambda max_age: max_age > 0)
        self._max_age = max_age
        self._asked: float | None = None  # when a mask was asked for first, since the loop began
        self._source = source
        self._clock = clock or Clock()
        self._perception = Perception(segmenter, target, self._clock.now)
        self._record = Recorder(self._rate(), self._clock)

    @property
    def frames(self) -> FrameCounts:
        """What became of the frames since the start."""
        return self._perception.counts

    def start(self) -> None:
        """Start perception. Starting twice does no harm.

        Raises
        ------
        StoppedError
            It was stopped: a controller runs once.
        """
        self._perception.start()

    def stop(self) -> None:
        """Stop perception and join its thread; `ticks` on another thread ends.

        The frame that is being segmented comes to its end, the one that waits is dropped and counted. Stopping twice
        does no harm. Not for a signal's handler, which may have interrupted the very loop that it would wait for.

        Raises
        ------
        PerceptionError
            Segmenting failed, and no call said so yet.
        """
        self._perception.stop()

    def offer(self, frame: Frame, taken: float | None = None) -> int:
        """Hand a frame in, from any thread, without waiting.

        Parameters
        ----------
        frame : (H, W, 3) uint8 array
            RGB, in the host's memory; copied, so that its buffer may be used again.
        taken : float, optional
            When it was taken, in seconds of ``time.perf_counter()``, or of the controller's own clock; by default now.

        Returns
        -------
        int
            The frame's number; its observation has the same.

        Raises
        ------
        InputTypeError, InputError
            `frame` is not a uint8 RGB image, or `taken` is not a time up to now.
        PerceptionError
            Segmenting an earlier frame failed.
        StoppedError
            The controller was not started yet, or was stopped.
        """
        now = self._clock.now()
        if taken is not None:
            wanted = f"up to now, {now:g} s of time.perf_counter()"
            taken = check_number("taken", taken, wanted, lambda taken: taken <= now)
        return self._perception.offer(frame, now if taken is None else taken)

    def newest(self, wait: float = 0.0) -> Observation | None:
        """Return the newest mask, and record its age.

        Parameters
        ----------
        wait : float
            Seconds to wait at most for the mask of the frame that was handed in last.

        Returns
        -------
        Observation or None
            None until there is a first one.

        Raises
        ------
        InputError
            `wait` is below 0 or not finite.
        PerceptionError
            Segmenting a frame failed.
        StaleError
            The mask is older than `max_age`.
        StoppedError
            The controller was not started yet, or was stopped.
        """
        observation = self._perception.newest(check_number("wait", wait, "at least 0", lambda wait: wait >= 0))
        observation = self._young_enough(observation)
        if observation is not None:
            self._record.use(observation.age)
        return observation

    def ticks(self, seconds: float | None = None) -> Iterator[Tick]:
        """Run the control loop: act on each tick before the next one is asked for.

        Deadlines are absolute, each a period after the one before. A tick that ends late is followed at once by the one
        of the period that runs by then. The frame of a source counts as taken when the source is asked for it, so what
        it takes to step and render, or to read, is part of the mask's age.

        Parameters
        ----------
        seconds : float, optional
            How long, to a whole number of periods, one at least; by default until `source` ends or `stop`.

        Yields
        ------
        Tick

        Raises
        ------
        InputError, InputTypeError
            `seconds` is not above 0, or the source gave something that is not a uint8 RGB image.
        PerceptionError
            Segmenting a frame failed.
        StaleError
            The newest mask is older than `max_age`.
        StoppedError
            The controller does not run when the loop begins.

        Notes
        -----
        What `source` raises goes through. A loop that is left by ``break`` does not count its last deadline.
        """
        self._perception.check_running()
        periods = inf
        if seconds is not None:
            periods = max(1, round(check_number("seconds", seconds, "above 0", lambda seconds: seconds > 0) * self._hz))
        self._asked = None
        frames = None if self._source is None else iter(self._source)
        rate = self._rate(periods)
        self._record = record = Recorder(rate, self._clock)
        for number in rate:
            record.mark()
            asked = self._clock.now()
            frame = None if frames is None else next(frames, _END)
            if frame is _END:
                return
            try:
                if frame is not None:
                    record.look(self._clock.now() - asked)
                    self._perception.offer(frame, asked)
                observation = self.newest(self._wait)
            except StoppedError:
                return
            record.ticks += 1
            record.blind += observation is None
            yield Tick(number, observation)
        record.mark()
        with suppress(StoppedError):
            self._perception.check_running()  # a failure is what may have ended the loop

    def report(self) -> Report:
        """Return the figures of the latest `ticks`, so far, and of all frames since the start."""
        return self._record.report(self._hz, self.frames)

    def _young_enough(self, observation: Observation | None) -> Observation | None:
        """Return the newest mask, or None where it is of before the loop; raise `StaleError` where it is too old."""
        if self._max_age is None:
            return observation
        now = self._clock.now()
        if self._asked is None:
            self._asked = now
        if observation is not None and observation.age <= self._max_age:
            return observation
        if observation is not None and now - observation.age >= self._asked:
            what = f"the newest mask is {observation.age:.3g} s old"
        elif now - self._asked > self._max_age:
            what = f"there is no mask after {now - self._asked:.3g} s"
        else:
            return None
        frames = self.frames
        raise StaleError(
            f"{what}, more than max_age, {self._max_age:g} s: {frames.seen} frames came, {frames.segmented} were "
            f"segmented, and {frames.pending or 'none'} {'is' if frames.pending == 1 else 'are'} pending"
        )

    def _rate(self, periods: float = inf) -> FixedRate:
        return FixedRate(self._hz, self._clock, self._perception.ended, periods)

    def __enter__(self) -> Controller:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except PerceptionError:
            # What ended the block comes first, and may well be the same
            if kind is None:
                raise
