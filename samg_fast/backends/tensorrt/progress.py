"""How far a build is, and an end to it."""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["Progress", "monitor"]


class Progress(Protocol):
    """Told how far a build is, from another thread than the one that asked for it, and by one at a time."""

    def __call__(self, phase: str, done: int, of: int, parent: str | None) -> None:
        """Take note of a phase.

        What it raises ends the build, and is raised by `build_engine`.

        Parameters
        ----------
        phase : str
            Its name. The same phase may come again.
        done, of : int
            Steps done of those it has: 0 when it begins, all when it ends.
        parent : str or None
            The phase that this one is a step of, or a part of a step.
        """
        ...


def monitor(library: Any, progress: Progress | None) -> Any:
    """Make an IProgressMonitor of a library: `cancel` ends the build, and `error` is what `progress` raised."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]  # the base is known only when the library is
        """Tells the caller of the library's phases, and the library of the caller's end to it.

        The library calls it from any of its threads, and no exception may pass through it.
        """

        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._cancelled = False
            self._phases: dict[str, tuple[int, str | None]] = {}
            self._lock = threading.Lock()

        def cancel(self) -> None:
            self._cancelled = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (num_steps, parent_phase)
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not self._cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, None)

        def _tell(self, phase: str, done: int | None) -> None:
            with self._lock:
                of, parent = self._phases.get(phase, (0, None))
                if progress is None or self._cancelled:
                    return
                try:
                    progress(phase, of if done is None else done, of, parent)
                except BaseException as error:  # raised by the build, not through the library
                    self.error, self._cancelled = error, True

    return Monitor()
