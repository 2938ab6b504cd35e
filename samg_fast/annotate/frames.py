"""The frames to annotate, any of them at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from samg_fast.checks import Frame
from samg_fast.errors import FileError
from samg_fast.media import frames_in

__all__ = ["FrameList", "from_source", "from_task"]

_ROOM = 512 * 2**20  # bytes: of a longer video every second frame is kept, or every fourth, and so on


@dataclass(frozen=True)
class FrameList:
    """Frames in memory.

    Attributes
    ----------
    name : str
        Where they are from.
    names : tuple of str
        Of each frame, fit for a file.
    frames : tuple of (H, W, 3) uint8 arrays
        RGB; sizes may differ.
    """

    name: str
    names: tuple[str, ...]
    frames: tuple[Frame, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all pixels, by which a session knows its frames again."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(f"{frame.shape}".encode())
            digest.update(np.ascontiguousarray(frame).tobytes())
        return digest.hexdigest()


def from_source(path: Path, room: int = _ROOM) -> FrameList:
    """Read an image, a folder of images or a video; of what does not fit into so many bytes, evenly chosen frames.

    Raises
    ------
    FileError
        There is none, or a frame cannot be read.
    """
    kept: list[tuple[str, Frame]] = []
    every, taken = 1, 0
    for number, (name, frame) in enumerate(frames_in(path)):
        if number % every:
            continue
        kept.append((name, frame))
        taken += frame.nbytes
        if taken > room and len(kept) > 2:
            kept, every = kept[::2], 2 * every
            taken = sum(each.nbytes for _, each in kept)
    if not kept:
        raise FileError(f"cannot annotate {path}: it has no frame")
    names, frames = zip(*kept, strict=True)
    return FrameList(str(path), names, frames)


def from_task(task: str, setting: str, size: int, count: int = 60, seed: int = 0) -> FrameList:
    """Render frames of a task: the start of an episode, then every fifth step of smooth random actions.

    Raises
    ------
    InputError, MissingExtraError, RenderingError
        As in `samg_fast.envs.make`.
    """
    from samg_fast.envs.dmc import LiveTask

    with LiveTask(task, setting, size, seed) as live:
        frames = [live.reset()]
        while len(frames) < count:
            live.skip(4)
            frames.append(live.step())
    return FrameList(f"{task}, {setting}", tuple([f"{number:06d}" for number in range(count)]), tuple(frames))
