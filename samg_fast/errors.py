"""Every exception that the package raises on purpose.

All have one base class, so that a program can catch what samg-fast says about its input, its files and the machine
without catching bugs. Each message is one sentence that names the thing, what came and what was expected.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BundleError",
    "CaptureError",
    "CheckpointError",
    "DamagedFileError",
    "DownloadError",
    "EngineParityError",
    "FileError",
    "InputError",
    "InputTypeError",
    "MissingExtraError",
    "PerceptionError",
    "RenderingError",
    "SamgError",
    "StoppedError",
    "first_line",
]


class SamgError(Exception):
    """Base of every error raised on purpose by this package."""


class InputError(SamgError, ValueError):
    """An argument has the right type but a value, shape or range that cannot be used."""


class InputTypeError(SamgError, TypeError):
    """An argument has the wrong type or the wrong dtype."""


class BundleError(SamgError, ValueError):
    """A bundle or target is missing, truncated, altered, of another format, or does not belong to the other."""


class CheckpointError(SamgError, ValueError):
    """A file is no official checkpoint: missing, truncated, altered, of another model, or not tensors alone."""


class DownloadError(SamgError, OSError):
    """A file cannot be fetched from where it is published."""


class BackendError(SamgError, RuntimeError):
    """A backend that was asked for cannot run here, or cannot run this network."""


class MissingExtraError(SamgError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    what : str
        What needs the dependency, as the beginning of a sentence: ``"the openvino backend"``.
    extra : str
        The extra of the package that brings it; the message holds the ``pip install`` that mends it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed; run: pip install 'samg-fast[{extra}]'")
        self.extra = extra


class FileError(SamgError, OSError):
    """A file cannot be read as what it should be, or cannot be written."""


class DamagedFileError(SamgError):
    """A file of the engine cache is not as it was written; the message is the reason, to follow "it"."""


class EngineParityError(BackendError):
    """An engine does not give what its bundle's fp32 files give."""


class CaptureError(BackendError):
    """What was to be captured as a CUDA graph cannot be; launched step by step it may still run."""


class RenderingError(SamgError, RuntimeError):
    """Off-screen rendering cannot start on this machine."""


class PerceptionError(SamgError, RuntimeError):
    """Segmenting a frame failed on the thread of perception; ``__cause__`` is what was raised there."""


class StoppedError(SamgError, RuntimeError):
    """Perception does not run: it was not started yet, or was stopped."""


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's error says, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
