"""Progress and cancellation of a build."""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["Progress", "monitor"]


class Progress(Protocol):
    """Progress callback of a build. It is called from another thread than the caller's, but never concurrently."""

    def __call__(self, phase: str, done: int, of: int, parent: str | None) -> None:
        """Report the progress of a phase.

        An exception raised here ends the build, and `build_engine` raises it again.

        Parameters
        ----------
        phase : str
            Name of the phase. The same phase may occur more than once.
        done, of : int
            Steps done and number of steps: `done` is 0 at the start and equals `of` at the end.
        parent : str or None
            The phase that contains this one.
        """
        ...


def monitor(library: Any, progress: Progress | None) -> Any:
    """Return an IProgressMonitor of a library; its `cancel` ends the build, its `error` is what `progress` raised."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]  # the library, and so the base class, is imported at run time
        """Passes progress from the library to the caller, and cancellation from the caller to the library.

        The library calls it from any of its threads, and no exception may propagate into the library.
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
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return not self._cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, None)

        def _report(self, phase: str, done: int | None) -> None:
            with self._lock:
                of, parent = self._phases.get(phase, (0, None))
                if progress is None or self._cancelled:
                    return
                try:
                    progress(phase, of if done is None else done, of, parent)
                except BaseException as error:  # kept for build_engine to raise: it must not propagate into the library
                    self.error, self._cancelled = error, True

    return Monitor()
