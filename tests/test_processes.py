"""A segmenter in several processes: pickled, copied, in children of a fork, and in threads as the program ends."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest

import samg_fast
from samg_fast import Segmenter
from samg_fast.across_processes import AcrossProcesses
from samg_fast.backends import choose, open_networks
from samg_fast.bundle import Bundle
from samg_fast.devices import process
from samg_fast.errors import BackendError, BundleError, InputTypeError
from support.synthetic_bundle import write_bundle

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 40, 56, 3), np.uint8)
MASK = np.zeros((40, 56), np.bool_)
MASK[8:30, 10:40] = True

START = """
import multiprocessing, os, sys, threading, time
import numpy as np
import samg_fast

frames = np.random.default_rng(0).integers(0, 256, (6, 40, 56, 3), np.uint8)
mask = np.zeros((40, 56), np.bool_)
mask[8:30, 10:40] = True
folder, backend, *arguments = sys.argv[1:]
segmenter = samg_fast.load(folder, backend=backend, device="cpu")
target = segmenter.identify(frames[0], mask)

def found(batch=frames):
    return [each.mask.tobytes() for each in segmenter.segment_batch(batch, target)]

expected = found()
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(program: str, *arguments: object, patience: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a program of its own: what waits for ever fails."""
    command = [sys.executable, "-c", START + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)


class TestForks:
    @needs_fork
    def test_a_pool_of_workers_opens_the_networks_anew(self, bundle_folder: Path, backend: str) -> None:
        """Also where a segmenter was closed before: what it left in its library must not be taken up again."""
        program = """
for threads in (1, 2, None):
    with samg_fast.load(folder, backend=backend, device="cpu", threads=threads) as closed:
        for count in (1, 5, 6):
            closed.segment_batch(frames[:count], target)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(found, [frames] * 4, 1) == [expected] * 4
assert found() == expected
"""
        done = run(program, bundle_folder, backend)
        assert done.returncode == 0, done.stderr

    @needs_fork
    def test_while_other_threads_are_in_calls(self, bundle_folder: Path, backend: str) -> None:
        """Every call, and the child's own exit code."""
        program = """
def pour(count):
    while True:
        segmenter.segment_batch(frames[:count], target)

for count in (1, 6):
    threading.Thread(target=pour, args=(count,), daemon=True).start()
calls = {
    "segment": lambda: segmenter.segment(frames[0], target),
    "segment_batch": lambda: found() == expected or sys.exit(1),
    "identify": lambda: segmenter.identify(frames[0], mask),
    "identify_masked_picture": lambda: segmenter.identify_masked_picture(frames[0], frames[0]),
    "adapt": lambda: segmenter.adapt(target, frames[0], mask),
}
for call in calls.values():
    child = os.fork()
    if child == 0:
        call()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
        done = run(program, bundle_folder, backend)
        assert done.returncode == 0, done.stderr

    @needs_fork
    def test_a_child_that_does_not_segment_ends_as_it_likes(self, bundle_folder: Path, backend: str) -> None:
        program = """
child = os.fork()
if child == 0:
    print("written before the end")
    sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
"""
        done = run(program, bundle_folder, backend)
        assert (done.returncode, done.stdout.strip()) == (0, "written before the end"), done.stderr

    @needs_fork
    def test_what_was_inherited_can_be_closed(self, bundle_folder: Path, backend: str) -> None:
        program = """
child = os.fork()
if child == 0:
    segmenter.close()
    del segmenter
    sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
assert found() == expected
"""
        done = run(program, bundle_folder, backend)
        assert done.returncode == 0, done.stderr

    @needs_fork
    def test_a_closed_segmenter_stays_closed(self, bundle_folder: Path, backend: str) -> None:
        program = """
segmenter.close()
child = os.fork()
if child == 0:
    try:
        segmenter.segment(frames[0], target)
    except samg_fast.BackendError as error:
        sys.exit(3 if "closed" in str(error) else 4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""
        done = run(program, bundle_folder, backend)
        assert done.returncode == 0, done.stderr

    @needs_fork
    def test_in_the_middle_of_a_call_that_does_not_end_it_says_so(self, bundle_folder: Path, backend: str) -> None:
        program = """
from samg_fast.devices import process

process._PATIENCE = 0.2

def call():
    with process.CALL:
        time.sleep(60)

threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    for use in (lambda: segmenter.segment(frames[0], target), lambda: samg_fast.load(folder, backend=backend)):
        try:
            use()
        except samg_fast.BackendError as error:
            assert "forked while another thread of its parent was segmenting" in str(error)
        else:
            os._exit(1)
    os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert found() == expected
os._exit(0)
"""
        done = run(program, bundle_folder, backend)
        assert done.returncode == 0, done.stderr

    @needs_fork
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_networks_of_one_s_own_say_so(self, bundle_folder: Path, one_segmenter: Segmenter) -> None:
        made = by_hand(bundle_folder, one_segmenter.backend)
        target = made.identify(FRAMES[0], MASK)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                made.segment(FRAMES[0], target)
            except BackendError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            assert "made by hand" in pipe.read()
        os.waitpid(child, 0)

    @pytest.mark.parametrize("own", [True, False])
    def test_a_gpu_says_so(self, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
        opened = AcrossProcesses(None if own else lambda: pytest.fail("opened"))
        opened.device, opened._networks = "cuda:0", SimpleNamespace(closed=False)  # type: ignore[assignment]
        opened._open_here()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(BackendError, match="CUDA does not survive a fork"):
            opened._open_here()


def by_hand(folder: Path, backend: str) -> Segmenter:
    bundle = Bundle.open(folder)
    runtime: Any = choose(backend, "fp32", 1, bundle.manifest, device="cpu")
    return Segmenter(bundle, runtime, open_networks(bundle, runtime))


class TestPickle:
    @pytest.mark.parametrize("library", [pickle, cloudpickle])
    def test_opens_the_same_anew(self, library: Any, segmenter: Segmenter) -> None:
        target = segmenter.identify(FRAMES[0], MASK)
        with library.loads(library.dumps(segmenter)) as other:
            assert other is not segmenter
            same = ("backend", "precision", "threads", "device")
            assert [getattr(other, name) for name in same] == [getattr(segmenter, name) for name in same]
            assert other.bundle == segmenter.bundle
            there, here = other.segment(FRAMES[1], target), segmenter.segment(FRAMES[1], target)
            assert np.array_equal(there.mask, here.mask)

    def test_a_name_stays_one_and_a_folder_becomes_absolute(
        self, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with samg_fast.load("tiny", device="cpu") as shipped:
            assert str(shipped.bundle.path).encode() not in pickle.dumps(shipped)
        monkeypatch.chdir(bundle_folder.parent)
        with samg_fast.load(bundle_folder.name, device="cpu", threads=1) as opened:
            monkeypatch.chdir(tmp_path)
            pickle.loads(pickle.dumps(opened)).close()

    def test_a_bundle_that_was_replaced_is_refused(self, bundle_folder: Path, tmp_path: Path) -> None:
        folder = tmp_path / "bundle"
        shutil.copytree(bundle_folder, folder)
        with samg_fast.load(folder, device="cpu", threads=1) as opened:
            pickled = pickle.dumps(opened)
        shutil.rmtree(folder)
        write_bundle(folder, shared=False, seed=11)
        with pytest.raises(BundleError, match="changed"):
            pickle.loads(pickled)

    def test_networks_of_one_s_own_say_so(self, bundle_folder: Path, one_segmenter: Segmenter) -> None:
        with (
            by_hand(bundle_folder, one_segmenter.backend) as made,
            pytest.raises(InputTypeError, match="made by hand"),
        ):
            pickle.dumps(made)

    def test_networks_of_one_s_own_may_say_how_to_make_them_again(self, bundle_folder: Path, backend: str) -> None:
        bundle = Bundle.open(bundle_folder)
        runtime: Any = choose(backend, "fp32", 1, bundle.manifest, device="cpu")
        again = _Again(bundle_folder, backend)
        with Segmenter(bundle, runtime, open_networks(bundle, runtime), reopen=again) as made:
            pickle.loads(pickle.dumps(made)).close()

    def test_a_closed_one_says_so(self, bundle_folder: Path) -> None:
        opened = samg_fast.load(bundle_folder, device="cpu", threads=1)
        opened.close()
        with pytest.raises(BackendError, match="closed"):
            pickle.dumps(opened)

    def test_copies_are_the_segmenter_itself(self, one_segmenter: Segmenter) -> None:
        assert copy.copy(one_segmenter) is one_segmenter
        assert copy.deepcopy([one_segmenter])[0] is one_segmenter


class _Again:
    def __init__(self, folder: Path, backend: str) -> None:
        self.folder, self.backend = folder, backend

    def __call__(self) -> Segmenter:
        return by_hand(self.folder, self.backend)


class TestCalls:
    @pytest.fixture
    def calls(self) -> Iterator[Any]:
        calls = process._Calls()
        yield calls
        calls.release()

    def test_none_begins_while_they_are_held(self, calls: Any) -> None:
        begun = threading.Event()

        def call() -> None:
            with calls, calls:
                begun.set()

        assert calls.hold()
        thread = threading.Thread(target=call)
        thread.start()
        assert not begun.wait(0.05)
        calls.release()
        thread.join(10)
        assert begun.is_set()
        assert calls.hold()

    def test_those_that_run_are_waited_for(self, calls: Any) -> None:
        running, ended = threading.Event(), []

        def call() -> None:
            with calls:
                running.set()
                time.sleep(0.05)
                ended.append(True)

        thread = threading.Thread(target=call)
        thread.start()
        running.wait(10)
        assert calls.hold()
        assert ended
        thread.join(10)

    def test_one_s_own_is_not_waited_for(self, calls: Any) -> None:
        with calls:
            assert calls.hold()

    def test_they_cost_little(self) -> None:
        """A microsecond or two a frame; the limit is for machines that do much else."""
        began = time.perf_counter()
        for _ in range(10_000):
            with process.CALL:
                pass
        assert time.perf_counter() - began < 0.2


def test_a_thread_that_still_segments_does_not_abort_the_end(bundle_folder: Path, backend: str) -> None:
    program = """
def pour():
    while True:
        segmenter.segment(frames[0], target)

threading.Thread(target=pour, daemon=True).start()
time.sleep(0.1)
sys.exit(3)
"""
    for _ in range(3):
        done = run(program, bundle_folder, backend)
        assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("seed", [-1, 0.5, "one"])
def test_the_seed_of_adapting_is_checked(one_segmenter: Segmenter, seed: Any) -> None:
    target = one_segmenter.identify(FRAMES[0], MASK, points=[(20, 20)])
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        one_segmenter.adapt(target, FRAMES[0], MASK, seed=seed)
    one_segmenter.adapt(target, FRAMES[0], MASK, seed=None)
