"""Where frames come from: folders of images, videos, and environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samg_fast.checks import Frame, Mask
from samg_fast.envs.backgrounds import VideoClip, find_clips
from samg_fast.errors import FileError, InputError
from samg_fast.media import VIDEO_SUFFIXES, read_image, read_mask
from samg_fast.media.images import IMAGE_SUFFIXES

__all__ = ["Policy", "masks_of", "read_backgrounds", "record"]

Policy = Callable[[Frame], Any]
"""Returns an action for a frame."""

_EPISODE = 10  # frames, after which a new episode begins elsewhere: episodes begin in many poses
_MANY = 40  # images of a background clip, at most: those of fifty clips take 250 MB


def masks_of(folder: Path, names: Sequence[str]) -> list[Mask]:
    """Read the masks of frames: ``NAME.png`` and the like in a folder.

    Raises
    ------
    FileError
        One is missing or cannot be read.
    """
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    missing = [name for name in names if name not in files]
    if missing:
        raise FileError(f"{folder} has no mask for {missing[0]} and {len(missing) - 1} other frames")
    return [read_mask(files[name]) for name in names]


def read_backgrounds(folder: Path, *, without: Sequence[str] = ()) -> list[VideoClip]:
    """Read the images and videos of a folder and its subfolders as backgrounds, reduced.

    Parameters
    ----------
    folder : path
    without : sequence of str
        Patterns of the videos to leave out, ``SUBFOLDER/NAME``.

    Raises
    ------
    FileError, InputError
        There are none, or one cannot be read.
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder of images and videos")
    files = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(".")]
    clips = [
        VideoClip(path.stem, _reduced(read_image(path))[None])
        for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in files):
        clips += find_clips(folder, without=without, size=(200, 200), stride=10, limit=_MANY)
    if not clips:
        raise InputError(f"{folder} has neither images nor videos")
    return clips


def record(
    task: str,
    count: int,
    *,
    settings: Sequence[str] = ("original",),
    size: int = 84,
    seed: int = 0,
    policy: Policy | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Frame], list[Mask]]:
    """Render frames of a task, with their ground truth.

    Parameters
    ----------
    task : str
    count : int
    settings : sequence of str
        In turn, an episode in each.
    size : int
        Side in pixels.
    seed : int
    policy : callable, optional
        Given a frame, returns an action; by default smooth random ones.
    advance : callable
        Called after every frame.
    """
    from samg_fast.envs.dmc import LiveTask

    rng = np.random.default_rng([seed, 3])
    frames: list[Frame] = []
    masks: list[Mask] = []
    number = 0
    while len(frames) < count:
        setting = settings[number % len(settings)]
        with LiveTask(task, setting, size, int(rng.integers(1 << 31))) as live:
            frame = live.reset()
            for _ in range(_EPISODE):
                between = int(rng.choice([1, 2, 5, 12, 25]))
                if policy is None:
                    live.skip(between)
                    frame = live.step()
                else:
                    for _ in range(between + 1):
                        frame = live.step(policy(frame))
                frames.append(frame)
                masks.append(live.mask)
                advance()
                if len(frames) == count:
                    break
        number += 1
    return frames, masks


def _reduced(image: Frame, side: int = 400) -> Frame:
    height, width = image.shape[:2]
    factor = side / min(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
