"""A segmenter in several processes: pickled, copied, and used in the child of a fork."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from samg_fast.devices import process
from samg_fast.errors import BackendError, BundleError, InputTypeError

if TYPE_CHECKING:
    from samg_fast.bundle import Bundle
    from samg_fast.pipeline.opened import OpenNetworks

__all__ = ["AcrossProcesses"]


class AcrossProcesses:
    """What a segmenter knows about processes.

    Networks stay in the process that opened them, as their libraries have threads and memory of their own there. Every
    other process opens them anew.

    Parameters
    ----------
    reopen : callable or None
        Makes the segmenter again in another process; None where that is not possible.
    """

    bundle: Bundle
    device: str
    _networks: OpenNetworks

    def __init__(self, reopen: Callable[[], AcrossProcesses] | None) -> None:
        self._process = os.getpid()
        self._reopen = reopen

    def __copy__(self) -> AcrossProcesses:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AcrossProcesses:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reopen is None:
            raise InputTypeError(
                "a segmenter that was made by hand, of networks of one's own, cannot be pickled: make it in each "
                "process, or give it reopen"
            )
        _ = self._networks.opened  # raises where it is closed
        return _reopened, (self._reopen, self.bundle.fingerprint)

    @property
    def _is_here(self) -> bool:
        """Whether the networks were opened in this process."""
        return self._process == os.getpid()

    def _open_here(self) -> None:
        """Open the networks anew if this process was forked from the one that opened them.

        Raises
        ------
        BackendError
            They cannot be opened in a forked process.
        """
        if self._process != os.getpid():
            with process.lock():
                if not self._is_here:
                    self._open_in_child()

    def _open_in_child(self) -> None:
        inherited = self._networks
        if not inherited.closed:
            start = 'start the process with multiprocessing\'s "spawn" or "forkserver"'
            if self.device != "cpu":
                raise BackendError(
                    "a segmenter on a GPU cannot be used in a process that was forked from the one that opened it, as "
                    f"CUDA does not survive a fork: {start}"
                )
            if self._reopen is None:
                raise BackendError(
                    "a segmenter that was made by hand, of networks of one's own, cannot be used in a process that was "
                    f"forked from the one that made it: make it in each process, or give it reopen, or {start}"
                )
            process.check_fork()
            self._leave_inherited()
            self._networks = _reopened(self._reopen, self.bundle.fingerprint)._networks
        self._process = os.getpid()

    def _leave_inherited(self) -> None:
        """Leave networks as they are that another process opened: to free them may take threads that are not here."""
        if not self._is_here:
            process.abandon(copy.copy(self._networks))


def _reopened(reopen: Callable[[], AcrossProcesses], fingerprint: str) -> AcrossProcesses:
    """Make a segmenter again, of the same bundle."""
    segmenter = reopen()
    if segmenter.bundle.fingerprint != fingerprint:
        raise BundleError(
            f"bundle {segmenter.bundle.name} is no longer what the segmenter was opened with: its networks have changed"
        )
    return segmenter
