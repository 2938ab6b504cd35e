"""What writes results frame by frame."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from samg_fast.background import Background
from samg_fast.objects import Objects

__all__ = ["Job", "Result", "Writer"]


class Result(NamedTuple):
    """What was found in a frame.

    Attributes
    ----------
    name : str
        Of the frame, fit for a file, different for every frame.
    seen : Objects
        One for each of the job's objects.
    time, duration : float or None
        When a video's frame is shown, and for how long, in seconds.
    """

    name: str
    seen: Objects
    time: float | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Job:
    """What results are written of.

    Attributes
    ----------
    folder : pathlib.Path
        Where they go; it exists.
    objects : tuple of str
        Names of the objects, in the order of their numbers, from 1.
    fps : float or None
        Frames per second, where the frames are those of a video.
    background : Background
        What stands where the objects do not, in formats that show them.
    """

    folder: Path
    objects: tuple[str, ...]
    fps: float | None = None
    background: Background = None


class Writer(abc.ABC):
    """Writes results; what was written until an interruption stays, and can be read.

    Parameters
    ----------
    job : Job

    Raises
    ------
    InputError
        The format cannot say what is asked.
    FileError
        It cannot be written there.
    """

    made: ClassVar[tuple[str, ...]]
    """Files and folders that it makes in the job's folder."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abc.abstractmethod
    def write(self, result: Result) -> None:
        """Write what was found in a frame."""

    def close(self) -> None:  # noqa: B027  # most formats have nothing to finish
        """Finish what belongs to all frames. Closing twice does no harm."""
