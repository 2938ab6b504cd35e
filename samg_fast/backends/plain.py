"""What backends share that run a bundle's files as they are, and what they make of other libraries' errors."""

from __future__ import annotations

from samg_fast.bundle import Bundle

__all__ = ["FilesAsTheyAre", "first_line"]


class FilesAsTheyAre:
    """The part of a backend that says: the files of a precision are run, and nothing is made of them before."""

    def files(self, precision: str) -> str:
        """Return the precision itself: its files are run as they are."""
        return precision

    def prepare(self, bundle: Bundle) -> None:
        """Do nothing: files are read when they are opened."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
