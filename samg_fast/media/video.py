"""Moving pictures on the disk, of every kind: all their frames that can be shown, or an error."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from samg_fast.checks import Frame
from samg_fast.errors import FileError
from samg_fast.media.animations import Animation, is_animation
from samg_fast.media.completeness import missing_bytes
from samg_fast.media.streams import VideoStreamSource, av_reason

__all__ = ["VIDEO_SUFFIXES", "TimedFrame", "VideoReader"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""What is taken for a video where a folder is searched; a file that is named may have any."""

_log = logging.getLogger("samg_fast")


class TimedFrame(NamedTuple):
    """A frame of a video and when it is shown.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    time : float
        Seconds from the start of the video, as players count them.
    duration : float
        Seconds for which it is shown, as the file says; one over the frames per second where it does not.
    """

    image: Frame
    time: float
    duration: float


class VideoReader:
    """The frames of a moving picture, in order; may be iterated more than once.

    Frames are turned and mirrored as the file says. Pictures at the start that cannot be shown, because the file was
    cut out of a longer one within a group of pictures, are left out, with a warning that says how many.

    Parameters
    ----------
    path : str or os.PathLike
        A video in any format PyAV reads, or a GIF, PNG, WebP, AVIF or TIFF that Pillow reads.
    grey : bool
        Whether videos without colours are taken.

    Attributes
    ----------
    path : pathlib.Path
    fps : float
        Frames per second as the file says, their mean where they vary; 25 where it does not.
    count : int or None
        Number of frames as the file says, None where it does not.
    start : float
        Seconds on the file's own clock at which its time 0 is.
    left_out : int
        Pictures at the start that could not be shown, as far as the last iteration got.

    Raises
    ------
    FileError
        The file is missing, is no video, has no picture track, or has no colours. While iterating: a frame cannot be
        decoded or has another size than those before, the file is cut short, or there is no frame.
    """

    def __init__(self, path: str | os.PathLike[str], *, grey: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileError(f"cannot read {self.path}: no such file")
        kind: type[Animation] | type[VideoStreamSource] = VideoStreamSource
        try:
            if is_animation(self.path):
                kind = Animation
            source = kind(self.path)
        except FileError:
            raise
        except kind.errors as error:
            reason = self._cut_short() or av_reason(error)
            raise FileError(f"cannot read {self.path}: it is not a video ({reason})") from error
        # as the segmenter refuses grey arrays: the networks know targets by their colour
        if source.grey and not grey:
            raise FileError(f"cannot use {self.path}: it is a grey video ({source.grey}), expected colours")
        self._source = source
        self.fps, self.count, self.start = source.fps, source.count, source.start

    @property
    def left_out(self) -> int:
        """Pictures at the start that could not be shown, as far as the last iteration got."""
        return self._source.left_out

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame, (H, W, 3) uint8."""
        for frame in self.timed():
            yield frame.image

    def timed(self) -> Iterator[TimedFrame]:
        """Yield every frame with its time; times rise from frame to frame."""
        number, last, size = 0, -1.0, None
        try:
            for image, time, duration in self._source:
                if size not in (None, image.shape[:2]):
                    raise FileError(
                        f"cannot use frame {number} of {self.path}: it is {_size(image.shape)} pixels where those "
                        f"before are {_size(size)}; split the video where its size changes"
                    )
                size = image.shape[:2]
                if time is None or time <= last:
                    time = last + 1 / self.fps if number else 0.0
                last = time
                yield TimedFrame(image, time, duration or 1 / self.fps)
                number += 1
        except FileError:
            raise
        except self._source.errors as error:
            reason = self._cut_short() or av_reason(error)
            raise FileError(f"cannot read frame {number} of {self.path}: {reason}") from error
        finally:
            if self.left_out:
                self._say_left_out()
        if reason := self._cut_short():
            raise FileError(f"cannot read frame {number} of {self.path}: {reason}")
        if number == 0:
            raise FileError(f"cannot use {self.path}: it holds no frame that can be shown")

    def _cut_short(self) -> str:
        missing = missing_bytes(self.path)
        return f"it is cut short, at least {missing} bytes are missing at its end" if missing else ""

    def _say_left_out(self) -> None:
        frames = "its first frame" if self.left_out == 1 else f"its first {self.left_out} frames"
        _log.warning(
            "%s was cut out of a longer video: %s cannot be shown without what is missing, and left out",
            self.path,
            frames,
        )


def _size(shape: tuple[int, ...] | None) -> str:
    """Say a size as people do: width first."""
    return "" if shape is None else f"{shape[1]}x{shape[0]}"
