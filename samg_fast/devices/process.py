"""Forks, and the end of the program: the threads of libraries survive neither.

Calls into networks are counted by thread. A fork waits for those of other threads, so that a child is never a copy of a
process in the middle of one, with locks held by threads that it does not have. So does the end of the program, which
would be aborted if it found a library in the middle of a call.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import threading
import time
import weakref
from typing import Any

from samg_fast.errors import BackendError

__all__ = ["CALL", "abandon", "check_fork", "keep_in_children", "lock"]

_PATIENCE = 30.0
"""Seconds that a fork or the end of the program waits for calls: more than a batch takes on any processor."""


class _Calls:
    """The calls that run now; a context manager that every call is within. A thread may enter it again inside."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}  # by thread; each thread writes its own entry alone
        self._holds = 0
        self._released = threading.Event()
        self._exempt: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        depth = self._depths.get(me, 0)
        self._depths[me] = depth + 1  # before the look at the holds: whoever holds looks at this one afterwards
        if self._holds and not depth:
            self._wait_for_release(me)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        depth = self._depths[me] - 1
        if depth:
            self._depths[me] = depth
        else:
            del self._depths[me]

    def hold(self) -> bool:
        """Keep other threads from beginning a call, and wait for the calls that run; say whether they ended in time."""
        self._released.clear()
        self._holds += 1
        deadline, me = time.monotonic() + _PATIENCE, threading.get_ident()
        while any(thread != me for thread in tuple(self._depths)):
            if time.monotonic() > deadline:
                return False
            time.sleep(2e-4)
        return True

    def release(self) -> None:
        """Let calls begin again."""
        self._holds -= 1
        if not self._holds:
            self._released.set()

    def end(self) -> None:
        """Wait for the calls that run; none begins any more but on this thread."""
        self._exempt = threading.get_ident()
        self.hold()

    def _wait_for_release(self, me: int) -> None:
        while self._holds and me != self._exempt:
            del self._depths[me]
            self._released.wait()
            self._depths[me] = 1


CALL = _Calls()
"""What every call into networks is within: ``with process.CALL:``."""

_kept: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.RLock()
_quiet = True
"""Whether no other thread was in a call when this process forked last."""
_torn = False
"""Whether this process was forked while another thread of its parent was in a call."""
_everything: list[Any] = []
"""What such a process must not free: it may wait for a thread that is not there."""


def lock() -> Any:
    """Return this process's lock for what is to be done once; a child has another one than its parent."""
    return _lock


def keep_in_children(value: Any) -> None:
    """Say that a value belongs to a library with threads: a child, which has none of them, never frees it."""
    _kept.add(value)


def abandon(value: Any) -> None:
    """Keep a value for ever: it is not freed at the end of the process either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def check_fork() -> None:
    """Do nothing where networks can be opened in this process.

    Raises
    ------
    BackendError
        It was forked while another thread of its parent was in a call that did not end.
    """
    if _torn:
        raise BackendError(
            "this process cannot segment, as it was forked while another thread of its parent was segmenting, for more "
            f'than {_PATIENCE:g} s: start it before, or with multiprocessing\'s "spawn" or "forkserver"'
        )


def _before_fork() -> None:
    global _quiet
    _quiet = CALL.hold()
    if not _quiet:
        _everything.extend(gc.get_objects())


def _after_fork_in_parent() -> None:
    _everything.clear()
    CALL.release()


def _after_fork_in_child() -> None:
    global CALL, _lock, _torn, _everything
    _torn = _torn or not _quiet
    CALL.__init__()  # type: ignore[misc]  # the same object, as modules hold it
    _lock = threading.RLock()
    for value in (*_kept, _everything):
        abandon(value)
    _everything = []
    if _kept:
        _skip_destructors()


def _skip_destructors() -> None:
    """Let this process end without the destructors of C++ libraries, which wait for threads that it does not have."""
    process = ctypes.CDLL(None)
    if hasattr(process, "on_exit"):  # glibc's; handlers run from the last to the first
        process.on_exit(process._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(CALL.end)
