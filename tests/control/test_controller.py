"""The controller: which frame is segmented, what is counted, when ticks come, and how it all ends."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import Segmentation, Segmenter
from samg_fast.control import Clock, Controller, FrameCounts
from samg_fast.errors import (
    BackendError,
    InputError,
    InputTypeError,
    PerceptionError,
    SamgError,
    StaleError,
    StoppedError,
)
from support.synthetic_bundle import picture

LONG = 20.0  # seconds that nothing here ever takes


class FakeClock(Clock):
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float, ended: threading.Event) -> None:
        if not ended.is_set():
            self.slept.append(seconds)
            self.time += seconds

    def cpu(self) -> float:
        return 1.5 * self.time


class Eye:
    """A segmenter that marks a frame's own number, and does `work` first."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.work = work
        self.saw: list[int] = []

    def check_target(self, target: Any) -> None:
        pass

    def segment(self, frame: NDArray[np.uint8], target: Any) -> Segmentation:
        self.saw.append(int(frame[0, 0, 0]))
        self.work()
        return Segmentation(frame=frame.copy(), mask=frame[..., 0] > 0, score=1.0, box=None, timings={})


class SlowEye(Eye):
    """A segmenter that is busy with each frame until it is told to finish it."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self._begun: queue.Queue[None] = queue.Queue()
        self._finish = threading.Semaphore(0)

    def _wait(self) -> None:
        self._begun.put(None)
        assert self._finish.acquire(timeout=LONG)

    def begun(self) -> int:
        """Wait until it is busy with the next frame, and return which."""
        self._begun.get(timeout=LONG)
        return self.saw[-1]

    def finish(self, frames: int = 1) -> None:
        self._finish.release(frames)


def frame(number: int) -> NDArray[np.uint8]:
    return np.full((4, 6, 3), number, np.uint8)


def controller(segmenter: Any, source: Any = None, **options: Any) -> Controller:
    return Controller(segmenter, None, source, **options)  # type: ignore[arg-type]


def until(happened: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fails(error: BaseException) -> Eye:
    def work() -> None:
        raise error

    return Eye(work)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before  # others' may have ended meanwhile


class TestFrames:
    def test_the_newest_wins_and_each_is_counted(self) -> None:
        eye = SlowEye()
        with controller(eye) as control:
            assert control.frames == FrameCounts(seen=0, segmented=0, dropped=0, pending=0)
            assert control.offer(frame(0)) == 0
            assert eye.begun() == 0
            assert control.frames == FrameCounts(seen=1, segmented=0, dropped=0, pending=1)
            assert [control.offer(frame(number)) for number in (1, 2, 3)] == [1, 2, 3]
            assert control.frames == FrameCounts(seen=4, segmented=0, dropped=2, pending=2)
            eye.finish()
            assert eye.begun() == 3
            assert control.frames == FrameCounts(seen=4, segmented=1, dropped=2, pending=1)
            eye.finish()
            newest = control.newest(wait=LONG)
            assert newest is not None
            assert newest.number == newest.segmentation.frame[0, 0, 0] == 3
            assert control.frames == FrameCounts(seen=4, segmented=2, dropped=2, pending=0)
        assert eye.saw == [0, 3]

    def test_counts_add_up_while_a_camera_pours_frames_in(self) -> None:
        def add_up(counts: FrameCounts) -> bool:
            return counts.seen == counts.segmented + counts.dropped + counts.pending

        def pour() -> None:
            for number in range(1000):
                control.offer(frame(number % 256))

        eye = Eye()
        with controller(eye) as control:
            cameras = [threading.Thread(target=pour) for _ in range(2)]
            for camera in cameras:
                camera.start()
            while any(camera.is_alive() for camera in cameras):
                assert add_up(control.frames)
            newest = control.newest(wait=LONG)
            assert newest is not None
            assert newest.number == 1999
        counts = control.frames
        assert add_up(counts)
        assert (counts.seen, counts.segmented, counts.pending) == (2000, len(eye.saw), 0)

    def test_its_buffer_may_be_used_again(self) -> None:
        eye, buffer = SlowEye(), frame(7)
        with controller(eye) as control:
            control.offer(buffer)
            eye.begun()
            buffer[:] = 9
            eye.finish()
            newest = control.newest(wait=LONG)
        assert newest is not None
        assert (newest.segmentation.frame == 7).all()

    @pytest.mark.parametrize(
        ("bad", "error", "message"),
        [
            (np.zeros((4, 6, 3)), InputTypeError, "frame must be a .* uint8 RGB array .*, not float64"),
            (np.zeros((4, 6), np.uint8), InputError, r"frame must be .* \(4, 6\)"),
        ],
    )
    def test_a_bad_one_is_refused_where_it_is_handed_in(self, bad: Any, error: type[Exception], message: str) -> None:
        with controller(Eye()) as control:
            with pytest.raises(error, match=message):
                control.offer(bad)
            assert control.frames.seen == 0
            control.offer(frame(1))
            assert control.newest(wait=LONG) is not None


class TestNewest:
    def test_does_not_wait_unless_asked_to(self) -> None:
        eye = SlowEye()
        with controller(eye) as control:
            assert control.newest(wait=LONG) is None  # no frame was handed in, so none is waited for
            control.offer(frame(0))
            assert control.newest() is None
            eye.finish()
            first = control.newest(wait=LONG)
            control.offer(frame(1))
            again, still = control.newest(), control.newest(wait=0.01)
            eye.finish()
        assert first is not None
        assert again is not None
        assert still is not None
        assert first.number == again.number == still.number == 0

    def test_tells_the_age_when_it_is_used(self) -> None:
        clock = FakeClock()
        with controller(Eye(), clock=clock) as control:
            control.offer(frame(0))
            first = control.newest(wait=LONG)
            clock.time += 0.25
            second = control.newest()
        assert first is not None
        assert second is not None
        assert (first.age, second.age) == (0.0, 0.25)
        assert control.report().ages == {"p50": 125.0, "p95": 237.5, "p99": 247.5, "max": 250.0}

    def test_counts_the_age_from_when_the_frame_was_taken(self) -> None:
        clock = FakeClock()
        with controller(Eye(), clock=clock) as control:
            control.offer(frame(0), taken=clock.time - 0.125)
            clock.time += 0.25
            newest = control.newest(wait=LONG)
        assert newest is not None
        assert newest.age == 0.375

    @pytest.mark.parametrize(
        ("taken", "error"), [(101, InputError), (nan, InputError), (1.7e9, InputError), ("now", InputTypeError)]
    )
    def test_refuses_a_frame_of_the_future(self, taken: Any, error: type[Exception]) -> None:
        message = r"taken must be a number up to now, 100 s of time\.perf_counter\(\), not "
        with controller(Eye(), clock=FakeClock()) as control:
            with pytest.raises(error, match=message):
                control.offer(frame(0), taken)
            assert control.frames.seen == 0

    @pytest.mark.parametrize("wait", [-1, nan, inf])
    def test_refuses_a_wait_that_is_none(self, wait: float) -> None:
        with controller(Eye()) as control, pytest.raises(InputError, match="wait must be a number at least 0, not"):
            control.newest(wait)


class TestFailure:
    def test_reaches_every_call_from_then_on(self) -> None:
        cause = BackendError("the network is gone")
        with controller(fails(cause)) as control:
            control.offer(frame(0))
            for call in (lambda: control.newest(LONG), lambda: control.offer(frame(1)), lambda: next(control.ticks())):
                with pytest.raises(
                    PerceptionError, match=r"^segmenting frame 0 failed: BackendError: the network is gone$"
                ) as raised:
                    call()
                assert raised.value.__cause__ is cause
                assert "raise error" in "".join(traceback.format_exception(raised.value))  # where it happened
        assert control.frames == FrameCounts(seen=1, segmented=0, dropped=1, pending=0)

    def test_the_frame_that_waits_is_dropped_and_counted(self) -> None:
        eye = SlowEye()
        work = eye.work

        def fail() -> None:
            work()
            raise ZeroDivisionError

        eye.work = fail
        with controller(eye) as control:
            control.offer(frame(0))
            eye.begun()
            control.offer(frame(1))
            eye.finish()
            with pytest.raises(PerceptionError, match="frame 0 failed: ZeroDivisionError"):
                control.newest(LONG)
            assert control.frames == FrameCounts(seen=2, segmented=0, dropped=2, pending=0)

    def test_is_not_lost_when_nobody_asks_again(self) -> None:
        with pytest.raises(PerceptionError), controller(fails(SystemExit("even this"))) as control:  # noqa: PT012
            control.offer(frame(0))
            until(lambda: control.frames.pending == 0)
        control.stop()  # it was told once

    def test_does_not_hide_what_ended_the_block(self) -> None:
        with pytest.raises(KeyError), controller(fails(ValueError("first"))) as control:  # noqa: PT012
            control.offer(frame(0))
            until(lambda: control.frames.pending == 0)
            raise KeyError

    def test_is_told_in_one_line(self) -> None:
        with controller(fails(RuntimeError("\nthe node\nin file x.cpp:7"))) as control:
            control.offer(frame(0))
            with pytest.raises(PerceptionError, match=r"^segmenting frame 0 failed: RuntimeError: the node$"):
                control.newest(LONG)

    def test_wakes_a_loop_that_waits_for_its_next_tick(self) -> None:
        asleep = threading.Event()

        def fail_then() -> None:
            assert asleep.wait(LONG)
            raise ValueError("bad")

        class Asleep(Clock):
            def sleep(self, seconds: float, ended: threading.Event) -> None:
                asleep.set()
                super().sleep(seconds, ended)

        asked = []
        source = (asked.append(number) or frame(number) for number in range(9))  # type: ignore[func-returns-value]
        with controller(Eye(fail_then), source, clock=Asleep(), hz=1 / LONG) as control:
            begun = time.monotonic()
            with pytest.raises(PerceptionError, match="frame 0 failed: ValueError: bad"):
                list(control.ticks())
            assert time.monotonic() - begun < LONG / 2
        assert asked == [0]  # nothing acts on from a failure

    def test_ends_the_loop(self) -> None:
        source = (frame(number) for number in range(9))
        with (
            controller(fails(ValueError("bad")), source, clock=FakeClock(), hz=1 / LONG, wait=LONG) as control,
            pytest.raises(PerceptionError, match="frame 0"),
        ):
            next(control.ticks())


class TestStop:
    def test_while_a_frame_is_segmented(self) -> None:
        eye = SlowEye()
        with controller(eye) as control:
            control.offer(frame(0))
            eye.begun()
            control.offer(frame(1))
            stopper = threading.Thread(target=control.stop)
            stopper.start()
            until(lambda: control.frames.dropped == 1)
            assert stopper.is_alive()
            with pytest.raises(StoppedError):
                control.offer(frame(2))
            eye.finish()
            stopper.join(LONG)
            assert not stopper.is_alive()
        assert control.frames == FrameCounts(seen=2, segmented=1, dropped=1, pending=0)

    def test_wakes_one_who_waits(self) -> None:
        eye, told = SlowEye(), queue.Queue[BaseException]()

        def wait() -> None:
            try:
                control.newest(LONG)
            except SamgError as error:
                told.put(error)

        with controller(eye) as control:
            control.offer(frame(0))
            eye.begun()
            waiter = threading.Thread(target=wait)
            waiter.start()
            stopper = threading.Thread(target=control.stop)
            stopper.start()
            assert isinstance(told.get(timeout=LONG), StoppedError)
            eye.finish()
            waiter.join()
            stopper.join()

    def test_ends_the_loop(self) -> None:
        numbers = []
        with controller(Eye(), clock=FakeClock()) as control:
            for tick in control.ticks():
                numbers.append(tick.number)
                if tick.number == 2:
                    control.stop()
        assert numbers == [0, 1, 2]

    def test_wakes_a_loop_that_waits_for_its_next_tick(self) -> None:
        asked = []
        source = (asked.append(number) or frame(number) for number in range(9))  # type: ignore[func-returns-value]
        with controller(Eye(), source, hz=1 / LONG) as control:
            begun = time.monotonic()
            for tick in control.ticks():
                assert tick.number == 0
                stopper = threading.Timer(0.05, control.stop)
                stopper.start()
            assert time.monotonic() - begun < LONG / 2
            stopper.join()
        assert asked == [0]

    def test_when_ctrl_c_ends_the_loop(self) -> None:
        with pytest.raises(KeyboardInterrupt), controller(Eye(), [frame(0)] * 9, clock=FakeClock()) as control:  # noqa: PT012
            for _ in control.ticks():
                raise KeyboardInterrupt
        assert control.frames.pending == 0

    def test_twice_and_unstarted(self) -> None:
        control = controller(Eye())
        control.stop()
        control.stop()
        with pytest.raises(StoppedError, match="was stopped, and runs once: make another one"):
            control.start()

    def test_starting_twice_does_no_harm(self) -> None:
        control = controller(Eye())
        control.start()
        threads = set(threading.enumerate())
        with control:
            assert set(threading.enumerate()) <= threads
            control.offer(frame(0))
            assert control.newest(LONG) is not None

    def test_what_does_not_run_says_so(self) -> None:
        control = controller(Eye())
        for call in (lambda: control.offer(frame(0)), control.newest, lambda: next(control.ticks())):
            with pytest.raises(StoppedError, match=r"use it in a with block, or start\(\) it"):
                call()
        with control:
            pass
        with pytest.raises(StoppedError, match="was stopped"):
            control.newest()


class TestTicks:
    def test_do_not_drift(self) -> None:
        clock = FakeClock()
        begun = []
        with controller(Eye(), clock=clock, hz=8) as control:
            for tick in control.ticks(seconds=2):
                begun.append(clock.time - 100)
                clock.time += 0.01 * (tick.number % 7)
        assert begun == pytest.approx([number / 8 for number in range(16)])
        report = control.report()
        assert (report.met, report.missed, report.ticks) == (16, 0, 16)
        assert report.rate == pytest.approx(8)
        assert report.cpu == pytest.approx(1.5)

    def test_every_deadline_is_met_or_missed(self) -> None:
        clock = FakeClock()
        work = {1: 2.5, 4: 1.0, 5: 1.25}  # periods: from 1 to 3.5, exactly to a deadline, from 5 to 6.25
        seen = []
        with controller(Eye(), clock=clock, hz=1) as control:
            for tick in control.ticks(seconds=9):
                seen.append((tick.number, clock.time - 100))
                clock.time += work.get(tick.number, 0.0)
        assert seen == [(0, 0), (1, 1), (3, 3.5), (4, 4), (5, 5), (6, 6.25), (7, 7), (8, 8)]
        report = control.report()
        assert (report.met, report.missed, report.ticks) == (6, 3, 8)
        assert report.rate == pytest.approx(8 / 9)
        assert clock.time == 109

    def test_the_source_is_asked_once_a_tick_on_the_loops_thread(self) -> None:
        asked = []

        def look() -> Iterator[NDArray[np.uint8] | None]:
            for number in (5, None, 6):
                asked.append(threading.current_thread())
                yield None if number is None else frame(number)

        eye, numbers = Eye(), []
        with controller(eye, look(), clock=FakeClock(), hz=1 / LONG, wait=LONG) as control:
            for tick in control.ticks():
                assert tick.observation is not None
                numbers.append((tick.number, tick.observation.number, len(asked)))
        assert numbers == [(0, 0, 1), (1, 0, 2), (2, 1, 3)]
        assert set(asked) == {threading.main_thread()}
        assert eye.saw == [5, 6]
        assert control.report().ticks == 3

    def test_the_source_is_part_of_the_tick_and_of_the_age(self) -> None:
        clock = FakeClock()

        def render() -> Iterator[NDArray[np.uint8]]:
            while True:
                clock.time += 1.5
                yield frame(0)

        with controller(Eye(), render(), clock=clock, hz=1, wait=1) as control:
            ticks = [(tick.number, tick.observation and tick.observation.age) for tick in control.ticks(seconds=4)]
        assert ticks == [(0, 1.5), (1, 1.5), (3, 1.5)]
        report = control.report()
        assert report.missed == 4
        assert report.source == report.ages == {"p50": 1500, "p95": 1500, "p99": 1500, "max": 1500}

    def test_deadlines_beyond_the_end_are_nobodys(self) -> None:
        clock = FakeClock()
        with controller(Eye(), clock=clock, hz=1) as control:
            for tick in control.ticks(seconds=4):
                clock.time += 5.5 if tick.number == 3 else 0
            report = control.report()
        assert (report.met, report.missed, report.ticks) == (3, 1, 4)
        assert report.rate == pytest.approx(4 / 8.5)

    def test_a_woken_sleeper_sleeps_on(self) -> None:
        class Restless(FakeClock):
            def sleep(self, seconds: float, ended: threading.Event) -> None:
                super().sleep(seconds / 2 if seconds > 1e-3 else seconds, ended)

        clock, begun = Restless(), []
        with controller(Eye(), clock=clock, hz=1) as control:
            for _ in control.ticks(seconds=3):
                begun.append(clock.time)
        assert begun == pytest.approx([100, 101, 102])

    def test_cost_nothing_while_they_wait(self) -> None:
        with controller(Eye(), [frame(0)] * 6, hz=10) as control:
            assert len(list(control.ticks())) == 6
        assert control.report().cpu is not None
        assert control.report().cpu < 0.25  # of a core, of this process alone, whatever others do

    def test_the_mask_of_its_own_frame(self) -> None:
        clock = FakeClock()

        def work() -> None:
            clock.time += 0.25

        source = (frame(number) for number in range(4))
        with controller(Eye(work), source, clock=clock, hz=1 / LONG, wait=LONG) as control:
            seen = [(tick.number, tick.observation) for tick in control.ticks()]
        assert [(number, each and (each.number, each.age)) for number, each in seen] == [
            (number, (number, 0.25)) for number in range(4)
        ]
        report = control.report()
        assert (report.blind, report.missed) == (0, 0)
        assert report.ages == {"p50": 250, "p95": 250, "p99": 250, "max": 250}

    def test_a_tick_before_the_first_mask_is_blind(self) -> None:
        eye = SlowEye()
        with controller(eye, iter([frame(0), frame(1)]), clock=FakeClock()) as control:
            assert [tick.observation for tick in control.ticks()] == [None, None]
            assert control.report().blind == 2
            assert control.report().ages is None
            eye.finish(2)

    def test_can_be_run_again(self) -> None:
        with controller(Eye(), [frame(0)] * 3, clock=FakeClock(), hz=2) as control:
            assert [len(list(control.ticks())) for _ in range(2)] == [3, 3]
            assert (control.report().ticks, control.report().met) == (3, 3)
        assert control.frames.seen == 6

    def test_what_the_source_raises_goes_through(self) -> None:
        def look() -> Iterator[NDArray[np.uint8]]:
            yield frame(0)
            raise OSError("unplugged")

        with pytest.raises(OSError, match="unplugged"), controller(Eye(), look(), clock=FakeClock()) as control:
            list(control.ticks())

    def test_a_source_without_frames(self) -> None:
        with controller(Eye(), [], clock=FakeClock()) as control:
            assert list(control.ticks()) == []
        report = control.report()
        assert (report.ticks, report.rate, report.cpu, report.ages, report.source) == (0, None, None, None, None)
        assert json.loads(json.dumps(report.to_json(), allow_nan=False))["frames"]["seen"] == 0

    @pytest.mark.parametrize("seconds", [0, -1, nan, inf])
    def test_refuses_a_time_that_is_none(self, seconds: float) -> None:
        with controller(Eye()) as control, pytest.raises(InputError, match="seconds must be a number above 0, not"):
            next(control.ticks(seconds))


class TestMaxAge:
    def test_a_camera_that_dies_ends_the_loop(self) -> None:
        clock = FakeClock()
        eye = Eye()
        source = iter([frame(1), frame(2), *[None] * 50])
        with controller(eye, source, hz=10, wait=0.1, max_age=0.25, clock=clock) as control:
            seen = []

            def run() -> None:
                for tick in control.ticks():
                    until(lambda: control.frames.pending == 0)
                    seen.append(tick.observation)

            with pytest.raises(StaleError, match=r"newest mask is 0\.3 s old, more than max_age, 0\.25 s: 2 frames"):
                run()
        assert all(each.age <= 0.25 for each in seen if each is not None)
        assert len(seen) == 4

    def test_so_does_one_that_never_gave_a_frame(self) -> None:
        clock = FakeClock()
        with controller(Eye(), iter([None] * 50), hz=10, max_age=0.25, clock=clock) as control:
            ticks = control.ticks()
            blind = []
            with pytest.raises(StaleError, match=r"there is no mask after 0\.3 s, more than max_age.*: 0 frames came"):
                blind += ticks
        assert all(tick.observation is None for tick in blind)

    def test_so_does_a_slow_segmenter(self) -> None:
        clock, eye = FakeClock(), SlowEye()
        with controller(eye, (frame(number) for number in range(50)), hz=10, max_age=0.25, clock=clock) as control:
            with pytest.raises(StaleError, match=r"none|pending"):
                list(control.ticks())
            eye.finish(50)

    def test_a_loop_of_one_s_own_is_told_too(self) -> None:
        clock = FakeClock()
        with controller(Eye(), max_age=1.0, clock=clock) as control:
            assert control.newest() is None  # the loop begins
            control.offer(frame(1))
            until(lambda: control.frames.pending == 0)
            clock.time += 0.9
            assert control.newest() is not None
            clock.time += 0.2
            with pytest.raises(StaleError):
                control.newest()

    def test_what_was_before_the_loop_is_no_failure(self) -> None:
        """A pause between two loops, a slow first image: the mask is not handed out, and a new one has its time."""
        clock = FakeClock()
        with controller(Eye(), iter([frame(1), None, frame(2)]), hz=10, wait=0.1, max_age=0.25, clock=clock) as control:
            next(control.ticks())
            until(lambda: control.frames.pending == 0)
            clock.time += 100
            ticks = control.ticks()
            assert next(ticks).observation is None
            first = next(ticks)
            until(lambda: control.frames.pending == 0)
            assert first.observation is not None or next(ticks, None) is None

    @pytest.mark.parametrize("max_age", [0, -1.0, inf, nan, "1"])
    def test_bad_ones_get_a_sentence(self, max_age: Any) -> None:
        with pytest.raises(SamgError, match="max_age must be a number above 0, or None, not"):
            controller(Eye(), max_age=max_age)


START = """
import os, sys, time
import numpy as np
from samg_fast.control import Controller

class Eye:
    def check_target(self, target):
        pass

    def segment(self, frame, target):
        time.sleep(0.3)
        if frame[0, 0, 0]:
            raise ValueError("blind")
        return "seen"

control = Controller(Eye(), None)
control.start()
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


class TestEndOfTheProgram:
    def test_perception_is_joined_and_the_exit_code_stays(self) -> None:
        done = ended("control.offer(np.zeros((4, 4, 3), np.uint8)); time.sleep(0.05); sys.exit(3)")
        assert (done.returncode, done.stderr) == (3, "")

    def test_an_exception_stays_the_last_word(self) -> None:
        done = ended("control.offer(np.zeros((4, 4, 3), np.uint8)); time.sleep(0.05); raise SystemError('mine')")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "SystemError: mine"

    def test_a_failure_nobody_was_told_of_is_logged(self) -> None:
        done = ended("control.offer(np.ones((4, 4, 3), np.uint8)); time.sleep(0.05); sys.exit(4)")
        assert (done.returncode, done.stderr.strip()) == (4, "segmenting frame 0 failed: ValueError: blind")

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_with_a_real_segmenter(self, backend: str, bundle_folder: Path) -> None:
        pytest.importorskip(backend)
        program = f"""
import samg_fast
segmenter = samg_fast.load({str(bundle_folder)!r}, backend={backend!r}, threads=1)
image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
control.stop()
control = Controller(segmenter, segmenter.identify(image, np.ones((90, 90), bool)))
control.start()
for _ in range(20):
    control.offer(image)
    time.sleep(0.002)
sys.exit(3)
"""
        for _ in range(3):
            done = ended(program)
            assert (done.returncode, done.stderr) == (3, "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_has_no_perception_and_says_so(self) -> None:
        program = """
child = os.fork()
if child == 0:
    image = np.zeros((4, 4, 3), np.uint8)
    calls = (control.newest, control.start, lambda: control.offer(image), lambda: control.frames)
    for call in (*calls, lambda: list(control.ticks(1))):
        try:
            call()
        except RuntimeError as error:
            assert "forked from" in str(error), error
        else:
            os._exit(1)
    control.stop()
    sys.exit(6)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
control.stop()
"""
        done = ended(program)
        assert (done.returncode, done.stderr) == (0, "")


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"hz": 0}, InputError, "hz must be a number above 0, not 0"),
            ({"hz": -40}, InputError, "hz must be a number above 0, not -40"),
            ({"hz": nan}, InputError, "hz must be a number above 0, not nan"),
            ({"hz": "40"}, InputTypeError, "hz must be a number above 0, not '40'"),
            ({"hz": 40, "wait": 0.026}, InputError, "wait must be a number from 0 to the period of 0.025 s, not 0.026"),
            ({"wait": -1}, InputError, "wait must be a number from 0 to the period of 0.025 s, not -1"),
            ({"wait": None}, InputTypeError, "wait must be a number .*, not None"),
            ({"source": print}, InputTypeError, "source must be an iterable of frames, .*, not .*: .* go to .*"),
        ],
    )
    def test_bad_ones_get_a_sentence(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^{message}$"):
            controller(Eye(), **options)


def test_a_target_that_is_none_is_refused_at_once(one_segmenter: Segmenter) -> None:
    with pytest.raises(InputTypeError, match=r"target must be a samg_fast\.Target, not NoneType"):
        controller(one_segmenter)


def test_two_at_once_on_one_segmenter() -> None:
    clock, eye = FakeClock(), Eye()
    with controller(eye, [frame(1)] * 20, clock=clock) as left, controller(eye, [frame(2)] * 20, clock=clock) as right:
        for ticks in zip(left.ticks(), right.ticks(), strict=True):
            for number, tick in enumerate(ticks, start=1):
                assert tick.observation is None or (tick.observation.segmentation.frame == number).all()
        for control, number in ((left, 1), (right, 2)):
            newest = control.newest(LONG)
            assert newest is not None
            assert (newest.segmentation.frame == number).all()
    assert left.frames.seen == right.frames.seen == 20


def test_a_real_segmenter_in_real_time(one_segmenter: Segmenter) -> None:
    image, mask = picture(48, 64)
    target = one_segmenter.identify(image, mask)
    expected = one_segmenter.segment(image, target).mask
    with Controller(one_segmenter, target, [image] * 5, hz=50) as control:
        for tick in control.ticks():
            if tick.observation is not None:
                assert tick.observation.age > 0
        newest = control.newest(LONG)
    assert newest is not None
    np.testing.assert_array_equal(newest.segmentation.mask, expected)
    assert newest.number == 4
    report = control.report()
    assert report.met + report.missed >= report.ticks
    assert report.frames.segmented + report.frames.dropped == report.frames.seen == report.ticks
    assert report.rate is not None
    assert report.cpu is not None
    assert min(report.rate, report.cpu) > 0
