"""Videos on the disk: every frame or an error, and a writer whose files are whole however the run ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from samg_fast.checks import Frame, check_frame, check_number
from samg_fast.errors import FileError, InputError
from samg_fast.files import check_writable, replacing

__all__ = ["VideoReader", "VideoWriter"]


class VideoReader:
    """The frames of a video file, in order; may be iterated more than once.

    Parameters
    ----------
    path : str or os.PathLike
        A video in any format PyAV reads.

    Attributes
    ----------
    path : pathlib.Path
    fps : float
        Frames per second as the file says; 25 where it does not.
    count : int or None
        Number of frames as the file says, None where it does not.

    Raises
    ------
    FileError
        The file is missing, is no video, or has no picture track. While iterating: a frame cannot be decoded, or there
        is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileError(f"cannot read {self.path}: no such file")
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise FileError(f"cannot read {self.path}: it has no picture track")
                stream = container.streams.video[0]
                self.fps = float(stream.average_rate or 25)
                self.count = stream.frames or None
        except (av.error.FFmpegError, ValueError) as error:
            raise FileError(f"cannot read {self.path}: it is not a video ({_reason(error)})") from error

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame, (H, W, 3) uint8."""
        number, end = 0, None
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                # Without this, decoders paint over what they cannot read and say nothing.
                stream.codec_context.options = {"err_detect": "explode"}
                for frame in container.decode(stream):
                    if frame.is_corrupt:
                        raise FileError(f"cannot read frame {number} of {self.path}: its data is damaged")
                    yield np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
                    number += 1
                    end = frame.time
                self._check_end(container, number, end)
        except (av.error.FFmpegError, ValueError) as error:
            raise FileError(f"cannot read frame {number} of {self.path}: {_reason(error)}") from error
        if number == 0:
            raise FileError(f"cannot use {self.path}: it holds no frame")

    def _check_end(self, container: InputContainer, number: int, last: float | None) -> None:
        """Refuse a file that stops long before the end it names: some are cut short without any decoder noticing."""
        if last is None or container.duration is None or len(container.streams) > 1:  # sound may be longer
            return
        start, whole = (container.start_time or 0) / av.time_base, container.duration / av.time_base
        missing = whole - (last - start + 1 / self.fps)
        if missing > max(0.1 * whole, 2 / self.fps):
            raise FileError(
                f"cannot read frame {number} of {self.path}: it is cut short, "
                f"{missing:.1f} of its {whole:.1f} s are missing"
            )


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """An H.264 video, written beside its final name and renamed when it is closed.

    The container is finished however the ``with`` block ends, so that an interrupted run leaves a video of the frames
    it had written. No file appears where no frame was written.

    Parameters
    ----------
    path : str or os.PathLike
        The video to make or replace, for example ``overlay.mp4``; its folder must exist.
    fps : float
        Frames per second, above 0.

    Raises
    ------
    InputError, InputTypeError
        `fps` is not a number above 0.
    FileError
        The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        fps = check_number("fps", fps, "above 0", lambda fps: fps > 0)
        self.path = Path(path)
        check_writable(self.path)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._size: tuple[int, int] | None = None
        self._file: ExitStack | None = None
        self._container: OutputContainer
        self._stream: VideoStream

    def write(self, frame: Frame) -> None:
        """Append a frame.

        Parameters
        ----------
        frame : (H, W, 3) uint8
            RGB, of the same size every time. An odd side is made even by repeating its last line: H.264 stores colours
            at half the resolution.

        Raises
        ------
        InputError, InputTypeError
            `frame` is no such array, or not of the size of the first one, or the video is closed.
        FileError
            The frame cannot be encoded or written.
        """
        frame = check_frame("frame", frame)
        height, width = frame.shape[:2]
        if self._size is not None and self._file is None:
            raise InputError(f"{self.path} is closed: nothing more can be written")
        if self._size not in (None, (height, width)):
            raise InputError(f"frame must be {self._size} like the first one, got {(height, width)}")
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._file is None:
                self._open(frame.shape[0], frame.shape[1])
                self._size = (height, width)
            for packet in self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                self._container.mux(packet)
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: this PyAV was built without the encoder
            raise FileError(f"cannot write {self.path}: {_reason(error)}") from error

    def close(self) -> None:
        """Finish the container and give the file its name. Closing twice is harmless."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:  # names the file on success, removes it on error
            try:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
                self._container.close()
            except av.error.FFmpegError as error:
                raise FileError(f"cannot write {self.path}: {_reason(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, height: int, width: int) -> None:
        with ExitStack() as file:
            self._container = av.open(str(file.enter_context(replacing(self.path))), mode="w")
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
            self._stream.options = {"crf": "18", "preset": "veryfast"}
            # In the caller's thread: threads of the encoder would run beside the segmenter and spoil its times.
            self._stream.codec_context.thread_count = 1
            self._file = file.pop_all()


def _reason(error: Exception) -> str:
    """Return PyAV's message without its error number and path."""
    return getattr(error, "strerror", None) or str(error)
