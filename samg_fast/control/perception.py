"""Perception on a thread of its own: the newest frame wins, and every frame is accounted for."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from samg_fast.checks import Frame, check_frame
from samg_fast.errors import PerceptionError, StoppedError, first_line

if TYPE_CHECKING:
    from samg_fast.results import Segmentation
    from samg_fast.segmenter import Segmenter
    from samg_fast.target import Target

__all__ = ["FrameCounts", "Observation", "Perception"]

_log = logging.getLogger("samg_fast")


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames; ``seen == segmented + dropped + pending``.

    Parameters
    ----------
    seen : int
        Frames that were handed in.
    segmented : int
        Those with a mask.
    dropped : int
        Those that will never have one: a newer one came first, segmenting them failed, or perception was stopped.
    pending : int
        The one that waits and the one that is being segmented; none after the stop.
    """

    seen: int
    segmented: int
    dropped: int
    pending: int


@dataclass(frozen=True, eq=False)
class Observation:
    """The newest mask, at the moment of its use.

    Parameters
    ----------
    number : int
        Which frame it is of, counted from 0 in the order they were handed in.
    age : float
        Seconds since that frame was taken.
    segmentation : Segmentation
        The frame and its mask.
    """

    number: int
    age: float
    segmentation: Segmentation


@dataclass(frozen=True, eq=False)
class _Frame:
    number: int
    taken: float
    pixels: Frame


class Perception:
    """Segments the newest frame on a thread of its own, and keeps the newest mask.

    A frame waits in a mailbox with one slot, where a newer one takes its place. All methods may be called from any
    thread but the one that segments.

    Parameters
    ----------
    segmenter : Segmenter
    target : Target or None
        None where the bundle is fitted to its target.
    now : callable
        Tells the time at which a mask is used, in seconds.

    Attributes
    ----------
    ended : threading.Event
        Set by the stop and by a failure: a loop that sleeps need not sleep on.
    """

    def __init__(self, segmenter: Segmenter, target: Target | None, now: Callable[[], float]) -> None:
        self._segmenter, self._target, self._now = segmenter, target, now
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self.ended = threading.Event()
        # Guards everything below, and is notified of every change that somebody may wait for
        self._changed = threading.Condition()
        self._waiting: _Frame | None = None
        self._segmenting = False
        self._newest: tuple[_Frame, Segmentation] | None = None
        self._seen = self._segmented = self._dropped = 0
        self._stopped = False
        self._failure: tuple[_Frame, BaseException] | None = None
        self._failure_is_known = False

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames so far."""
        with self._here():
            pending = (self._waiting is not None) + self._segmenting
            return FrameCounts(self._seen, self._segmented, self._dropped, pending)

    def start(self) -> None:
        """Start the thread; see `Controller.start`."""
        with self._here():
            if self._stopped:
                raise StoppedError("the controller was stopped, and runs once: make another one")
            if self._thread is None:
                # A daemon, so that a program that forgets to stop it can end all the same: `_stop_all` does it then
                thread = threading.Thread(target=self._run, name="samg-fast perception", daemon=True)
                thread.start()
                self._thread = thread
                _running.add(self)

    def stop(self) -> None:
        """Stop and join the thread; see `Controller.stop`."""
        if self._process != os.getpid():  # there is no thread here
            return
        with self._changed:
            self._stopped = True
            self._drop_waiting()
            self._end()
        if self._thread is not None:
            self._thread.join()
        _running.discard(self)
        with self._changed:
            if not self._failure_is_known:
                self._raise_failure()

    def check_running(self) -> None:
        """Check that perception runs.

        Raises
        ------
        PerceptionError
            Segmenting a frame failed.
        StoppedError
            Perception was not started yet, or was stopped, or runs in the process that this one was forked from.
        """
        with self._here():
            self._raise_failure()
            if self._stopped:
                raise StoppedError("the controller was stopped")
            if self._thread is None:
                raise StoppedError("the controller does not run: use it in a with block, or start() it")

    def offer(self, frame: Frame, taken: float) -> int:
        """Hand a frame in, in place of one that still waits; see `Controller.offer`."""
        pixels = np.array(check_frame("frame", frame))
        with self._here():
            self.check_running()
            number = self._seen
            self._seen += 1
            self._drop_waiting()
            self._waiting = _Frame(number, taken, pixels)
            self._changed.notify_all()
        return number

    def newest(self, wait: float) -> Observation | None:
        """Return the newest mask; see `Controller.newest`."""
        with self._here():
            last = self._seen - 1
            self._changed.wait_for(lambda: self._reached(last) or self.ended.is_set(), wait)
            self.check_running()
            if self._newest is None:
                return None
            frame, segmentation = self._newest
        return Observation(frame.number, self._now() - frame.taken, segmentation)

    def _here(self) -> threading.Condition:
        """Return the lock, in the process that made it: a thread that a child does not have may hold it there."""
        if self._process != os.getpid():
            raise StoppedError(
                "the controller runs in the process that this one was forked from: make another one here"
            )
        return self._changed

    def _reached(self, number: int) -> bool:
        """Return whether there is a mask of this frame or a newer one; before the first frame there need not be."""
        return number < 0 or (self._newest is not None and self._newest[0].number >= number)

    def _drop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._dropped += 1

    def _end(self) -> None:
        self.ended.set()
        self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._failure_is_known = True
            frame, cause = self._failure
            why = f"{type(cause).__name__}: {first_line(cause)}"
            raise PerceptionError(f"segmenting frame {frame.number} failed: {why}") from cause

    def _run(self) -> None:
        """Segment until the stop or the first failure: the thread."""
        while (frame := self._take()) is not None:
            try:
                segmentation = self._segmenter.segment(frame.pixels, self._target)
            except BaseException as error:  # even SystemExit, which would end the thread without a word
                self._fail(frame, error)
                return
            self._keep(frame, segmentation)

    def _take(self) -> _Frame | None:
        """Wait for a frame; None at the stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopped)
            frame, self._waiting = self._waiting, None
            self._segmenting = frame is not None
            return frame

    def _keep(self, frame: _Frame, segmentation: Segmentation) -> None:
        with self._changed:
            self._segmenting = False
            self._segmented += 1
            self._newest = frame, segmentation
            self._changed.notify_all()

    def _fail(self, frame: _Frame, error: BaseException) -> None:
        with self._changed:
            self._segmenting = False
            self._dropped += 1
            self._drop_waiting()
            self._failure = frame, error
            self._end()


_running: weakref.WeakSet[Perception] = weakref.WeakSet()


def _stop_all() -> None:
    """Stop what a program that ends has not stopped: a thread inside a library would abort the interpreter's end."""
    for perception in tuple(_running):
        try:
            perception.stop()
        except PerceptionError as error:
            _log.error("%s", error)


atexit.register(_stop_all)
