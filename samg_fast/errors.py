"""Every exception that the package raises on purpose.

All derive from `SamgError`, so that a program can catch errors about its input, its files and the machine without
catching bugs. Each message is one sentence: what is wrong, what was given and what was expected.
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
    "FitError",
    "InputError",
    "InputTypeError",
    "MissingExtraError",
    "PerceptionError",
    "RenderingError",
    "SamgError",
    "StaleError",
    "StoppedError",
    "first_line",
]


class SamgError(Exception):
    """Base class of every exception that this package raises on purpose."""


class InputError(SamgError, ValueError):
    """An argument has the right type, but its value or shape cannot be used."""


class InputTypeError(SamgError, TypeError):
    """An argument has the wrong type or the wrong dtype."""


class BundleError(SamgError, ValueError):
    """A bundle or target is missing, truncated, altered or of another format, or a target belongs to another bundle."""


class CheckpointError(SamgError, ValueError):
    """A file is not the official checkpoint: missing, truncated, altered, of another model, or not only tensors."""


class FitError(SamgError, RuntimeError):
    """A fitted network is worse than its teacher."""


class DownloadError(SamgError, OSError):
    """A file cannot be downloaded."""


class BackendError(SamgError, RuntimeError):
    """A requested backend cannot run on this machine, or cannot run this network."""


class MissingExtraError(SamgError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    what : str
        What needs the dependency, as the start of a sentence: ``"the openvino backend"``.
    extra : str
        The extra of this package that installs it; the message contains the ``pip install`` command.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed; run: pip install 'samg-fast[{extra}]'")
        self.extra = extra


class FileError(SamgError, OSError):
    """A file cannot be read, has unusable content, or cannot be written."""


class DamagedFileError(SamgError):
    """A file of the engine cache was altered; the message gives the reason as a predicate, to follow "it"."""


class EngineParityError(BackendError):
    """An engine's outputs do not agree with those of its bundle's fp32 files."""


class CaptureError(BackendError):
    """Work cannot be captured as a CUDA graph; it may still run when launched step by step."""


class RenderingError(SamgError, RuntimeError):
    """Off-screen rendering cannot start on this machine."""


class PerceptionError(SamgError, RuntimeError):
    """Segmenting a frame failed on the perception thread; ``__cause__`` is the exception raised there."""


class StaleError(SamgError, RuntimeError):
    """The newest mask is older than a control loop allows."""


class StoppedError(SamgError, RuntimeError):
    """Perception is not running: it was not started yet, or was stopped."""


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, or its type's name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
