"""A video writer whose files are whole however the run ends."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from samg_fast.checks import Frame, check_frame, check_number
from samg_fast.errors import FileError, InputError
from samg_fast.files import check_writable, replacing
from samg_fast.media.streams import AV_ERRORS, av_path, av_reason

__all__ = ["VideoWriter"]

_SLOWEST, _FASTEST = 1e-5, 1e5

# Encoder, pixel format, and options: what the eye takes for lossless, quickly
_OPAQUE = ("libx264", "yuv420p", {"crf": "18", "preset": "veryfast"})
_TRANSPARENT = ("libvpx-vp9", "yuva420p", {"crf": "18", "b": "0", "deadline": "realtime", "cpu-used": "8"})


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """An H.264 video, or with transparency a VP9 one, written beside its final name and renamed when it is closed.

    The container is finished however the ``with`` block ends, so that an interrupted run leaves a video of the frames
    it had written. No file appears where no frame was written.

    Parameters
    ----------
    path : str or os.PathLike
        The video to make or replace, for example ``overlay.mp4``; its folder must exist.
    fps : float
        Frames per second, from 0.00001 (about a frame a day) to 100000. Where frames come with times, about how many
        there are.
    alpha : bool
        Whether frames are RGBA, and the video ``.webm``.

    Raises
    ------
    InputError, InputTypeError
        `fps` is not such a number.
    FileError
        The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, *, alpha: bool = False) -> None:
        fps = check_number("fps", fps, "above 0", lambda fps: fps > 0)
        check_number("fps", fps, "from 0.00001 to 100000", lambda fps: _SLOWEST <= fps <= _FASTEST)
        self.path = Path(path)
        self._alpha = alpha
        check_writable(self.path)
        self._rate = (
            Fraction(fps).limit_denominator(1001) if fps >= 1 else 1 / Fraction(1 / fps).limit_denominator(1001)
        )
        # A file's format keeps the time from one frame to the next in 32 bits.
        self._tick = Fraction(1, 90_000 if fps >= 1 else 1000)
        self._size: tuple[int, int] | None = None
        self._timed = False
        self._end = 0
        self._durations: dict[int | None, int] = {}
        self._file: ExitStack | None = None
        self._container: OutputContainer
        self._stream: VideoStream

    def write(self, frame: Frame, *, time: float | None = None, duration: float | None = None) -> None:
        """Append a frame.

        Parameters
        ----------
        frame : (H, W, 3) uint8, or (H, W, 4)
            RGB, or RGBA of a video with transparency; of the same size every time. An odd side is made even by
            repeating its last line: colours are stored at half the resolution.
        time : float, optional
            When it is shown, in seconds, later than the one before; with every frame, or with none. By default frames
            are evenly spaced.
        duration : float, optional
            How long it is shown, in seconds; counts for the last frame, and only with `time`.

        Raises
        ------
        InputError, InputTypeError
            `frame` is no such array, or not of the size of the first one, or the video is closed, or some frames have
            a time and some do not.
        FileError
            The frame cannot be encoded or written.
        """
        if self._alpha:
            check_frame("frame", frame[..., :3])
        else:
            frame = check_frame("frame", frame)
        height, width = frame.shape[:2]
        if self._size is not None and self._file is None:
            raise InputError(f"{self.path} is closed: nothing more can be written")
        if self._size not in (None, (height, width)):
            raise InputError(f"frame must be {self._size} like the first one, got {(height, width)}")
        if time is not None:
            time = check_number("time", time, "of at least 0", lambda time: time >= 0)
        if self._size is not None and self._timed != (time is not None):
            raise InputError("time must come with every frame or with none, got both")
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._file is None:
                self._timed = time is not None
                self._open(frame.shape[0], frame.shape[1])
                self._size = (height, width)
            picture = av.VideoFrame.from_ndarray(frame, format="rgba" if self._alpha else "rgb24")
            if time is not None:
                picture.pts = max(round(time / self._tick), self._end)
                picture.time_base = self._tick
                self._end = picture.pts + 1
                self._durations[picture.pts] = max(1, round((duration or 1 / self._rate) / self._tick))
            self._mux(self._stream.encode(picture))
        except AV_ERRORS as error:
            raise FileError(f"cannot write {self.path}: {av_reason(error)}") from error

    def close(self) -> None:
        """Finish the container and give the file its name. Closing twice is harmless."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:  # names the file on success, removes it on error
            try:
                self._mux(self._stream.encode(None))
                self._container.close()
            except av.error.FFmpegError as error:
                raise FileError(f"cannot write {self.path}: {av_reason(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._timed:
                packet.duration = self._durations.pop(packet.pts, 0)
            self._container.mux(packet)

    def _open(self, height: int, width: int) -> None:
        with ExitStack() as file:
            self._container = av.open(av_path(file.enter_context(replacing(self.path))), mode="w")
            codec, pixels, options = _TRANSPARENT if self._alpha else _OPAQUE
            self._stream = cast(VideoStream, self._container.add_stream(codec, rate=self._rate))
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, pixels
            self._stream.options = dict(options)
            if self._timed:
                self._stream.codec_context.time_base = self._tick
                # Files keep the times between frames in the order of decoding: right only if that is the order shown.
                if not self._alpha:
                    self._stream.options = {**self._stream.options, "bf": "0"}
            # In the caller's thread: threads of the encoder would run beside the segmenter and spoil its times.
            self._stream.codec_context.thread_count = 1
            self._file = file.pop_all()
