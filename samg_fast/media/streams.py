"""Video files as PyAV decodes them: shown pictures with their own times, turned as the file says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from samg_fast.checks import Frame
from samg_fast.errors import FileError

__all__ = ["AV_ERRORS", "VideoStreamSource", "av_path", "av_reason"]

AV_ERRORS = (av.error.FFmpegError, ValueError)  # ValueError: PyAV's own, as of a format or encoder it lacks

# H.264 reorders pictures over at most so many
_REORDERED = 16

# Kinds of units in H.264: a picture, and one after which nothing needs what is before it
_PICTURE, _FRESH_PICTURE = 1, 5


def av_path(path: Path) -> str:
    """Return a path as PyAV takes it: in a relative name it takes what stands before a colon for a protocol."""
    return str(path.absolute())


def av_reason(error: Exception) -> str:
    """Say what PyAV says, without its error number and path."""
    return getattr(error, "strerror", None) or str(error)


class VideoStreamSource:
    """The first picture track of a file that PyAV reads.

    Parameters
    ----------
    path : pathlib.Path

    Attributes
    ----------
    fps : float
        Frames per second as the file says; 25 where it does not.
    count : int or None
        Number of frames as the file says, None where it does not.
    start : float
        Seconds on the file's own clock at which it starts: what players show as 0.
    grey : str
        The name of the pixel format if it has no colours, else empty.
    left_out : int
        Pictures at the start of the last iteration that could not be shown.

    Raises
    ------
    FileError
        The file has no picture track.
    FFmpegError, ValueError
        The file is no video.
    """

    errors: tuple[type[Exception], ...] = (*AV_ERRORS, OSError)

    def __init__(self, path: Path) -> None:
        self._path = path
        self.left_out = 0
        with self._open() as container:
            if not container.streams.video:
                raise FileError(f"cannot read {path}: it has no picture track")
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or 25)
            self.count = stream.frames or None
            self.start = _start(container, stream)
            pixels = stream.codec_context.pix_fmt or ""
            self.grey = pixels if pixels.startswith(("gray", "mono", "ya")) else ""

    def __iter__(self) -> Iterator[tuple[Frame, float | None, float | None]]:
        """Yield every frame that can be shown, (H, W, 3) uint8, its time and how long it is shown, in seconds.

        Times count from the file's start, and are None where the file does not say.
        """
        self.left_out = 0
        with self._open() as container:
            stream = container.streams.video[0]
            # Without this, decoders paint over what they cannot read and say nothing.
            stream.codec_context.options = {"err_detect": "explode"}
            # AVI says when packets are due and not which picture is shown when: pictures take the places in order.
            places: deque[float] | None = deque() if container.format.name == "avi" else None
            begun: list[int] = []
            opening: bool | None = None
            first: int | None = None
            since_key = 0
            for packet in container.demux(stream):
                if packet.size:
                    if opening is None:
                        opening = _needs_what_is_before(stream, packet)
                    since_key += bool(since_key or packet.is_keyframe)
                    if places is not None and packet.dts is not None and packet.time_base is not None:
                        places.append(float(packet.dts * packet.time_base))
                starting = first is None or since_key <= _REORDERED
                if starting and packet.pts is not None and (opening or not packet.is_discard):
                    begun.append(packet.pts)
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    # Decoders complain once more where a picture that was cut away is mentioned but not needed.
                    if starting and opening:
                        continue
                    raise
                if first is None and frames:
                    first = frames[0].pts
                if starting and first is not None:
                    self.left_out = sum(pts < first for pts in begun)
                for frame in frames:
                    if frame.is_corrupt:
                        raise ValueError("its data is damaged")
                    time = places.popleft() if places else frame.time
                    duration = float(getattr(frame, "duration", 0) * (frame.time_base or 0))  # not in PyAV 14
                    yield _shown(frame), None if time is None else time - self.start, duration or None
            if opening and places:
                self.left_out = len(places)

    def _open(self) -> AbstractContextManager[InputContainer]:
        return av.open(av_path(self._path))


def _start(container: InputContainer, stream: VideoStream) -> float:
    """Return the seconds at which a file starts, by its first packets where it does not say."""
    start = cast("int | None", container.start_time)
    if start is not None:
        return start / av.time_base
    begun = [packet.pts for packet in islice(container.demux(stream), _REORDERED) if packet.pts is not None]
    return float(min(begun) * stream.time_base) if begun and stream.time_base else 0.0


def _needs_what_is_before(stream: VideoStream, packet: Packet[Any]) -> bool:
    """Return whether a stream starts within a group of pictures: it was cut there without being encoded again."""
    context: CodecContext = stream.codec_context
    if context.name != "h264":
        return not packet.is_keyframe
    data, header = bytes(packet), context.extradata or b""
    kinds = set()
    if header[:1] == b"\x01" and len(header) > 4:  # as in MP4 and Matroska: every unit after its length
        width, at = (header[4] & 3) + 1, 0
        while at + width < len(data):
            kinds.add(data[at + width] & 31)
            at += width + int.from_bytes(data[at : at + width], "big")
    else:
        kinds.update(unit[0] & 31 for unit in data.split(b"\0\0\1")[1:] if unit)
    return _PICTURE in kinds and _FRESH_PICTURE not in kinds


def _shown(frame: VideoFrame) -> Frame:
    """Convert a frame to RGB and turn and mirror it as players do."""
    image = cast("Frame", frame.to_ndarray(format="rgb24"))
    for each in cast("Iterable[SideData]", frame.side_data):
        if each.type == Type.DISPLAYMATRIX:
            a, b, _, c, d, *_ = np.frombuffer(bytes(each), np.int32).tolist()
            image = _turned(image, a, b, c, d)
    return np.ascontiguousarray(image)


def _turned(image: Frame, a: int, b: int, c: int, d: int) -> Frame:
    """Move what is at (x, y) to (a x + c y, b x + d y), to the nearest quarter of a turn."""
    if abs(a) + abs(d) < abs(b) + abs(c):
        image = image.transpose(1, 0, 2)
        to_right, down = c, b
    else:
        to_right, down = a, d
    return image[:: -1 if down < 0 else 1, :: -1 if to_right < 0 else 1]
