"""The frames of whatever `samg-fast segment` takes: an image, a folder of images, or a moving picture."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from samg_fast.checks import Frame
from samg_fast.errors import FileError
from samg_fast.media.animations import is_moving
from samg_fast.media.images import IMAGE_SUFFIXES, read_image
from samg_fast.media.video import VideoReader

__all__ = ["Frames", "NamedFrame", "frames_in"]


class NamedFrame(NamedTuple):
    """A frame, with a name fit for a file.

    Parameters
    ----------
    name : str
        Different for every frame.
    image : (H, W, 3) uint8 array
    time, duration : float or None
        Of a video's frame: when it is shown and for how long, in seconds.
    """

    name: str
    image: Frame
    time: float | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Frames:
    """The frames of an image, a folder of images or a video, one at a time.

    Attributes
    ----------
    path : pathlib.Path
    kind : str
        "image", "folder" or "video".
    count : int or None
        How many there are; None where a video does not say.
    fps : float or None
        Frames per second of a video, else None.
    """

    path: Path
    kind: Literal["image", "folder", "video"]
    count: int | None
    fps: float | None
    _source: VideoReader | tuple[tuple[str, Path], ...]

    @property
    def video(self) -> VideoReader | None:
        """The reader of a video, else None."""
        return self._source if isinstance(self._source, VideoReader) else None

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield a name fit for a file, different for every frame, and the frame, (H, W, 3) uint8.

        Raises
        ------
        FileError
            A frame cannot be read.
        """
        for frame in self.timed():
            yield frame.name, frame.image

    def timed(self) -> Iterator[NamedFrame]:
        """Yield every frame with its name and, of a video, its time.

        Raises
        ------
        FileError
            A frame cannot be read.
        """
        if isinstance(self._source, VideoReader):
            for number, frame in enumerate(self._source.timed()):
                yield NamedFrame(f"{number:06d}", *frame)
        else:
            for name, path in self._source:
                yield NamedFrame(name, read_image(path))


def frames_in(path: str | os.PathLike[str]) -> Frames:
    """Open an image, a folder of images or a video.

    The images of a folder come in the order of their names, numbers in them taken as numbers (2 before 10). Names that
    begin with a dot are left out: systems put files of their own beside images.

    Parameters
    ----------
    path : str or os.PathLike
        A folder; a file with one of `IMAGE_SUFFIXES` that holds one picture; or else a video.

    Returns
    -------
    Frames

    Raises
    ------
    FileError
        There is nothing at `path`, the folder has no image, or the file is no video.
    """
    path = Path(path)
    if path.is_dir():
        images = [
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
        ]
        if not images:
            raise FileError(f"cannot use {path}: the folder holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
        stems = Counter(image.stem for image in images)
        # a.png and a.jpg must not both become a.png
        named = tuple(
            (image.stem if stems[image.stem] == 1 else image.name, image) for image in sorted(images, key=_natural)
        )
        return Frames(path, "folder", len(named), None, named)
    if path.suffix.lower() in IMAGE_SUFFIXES and not is_moving(path):
        if not path.exists():
            raise FileError(f"cannot read {path}: no such file")
        return Frames(path, "image", 1, None, ((path.stem, path),))
    video = VideoReader(path)
    return Frames(path, "video", video.count, video.fps, video)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that takes runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
