"""Cameras: their newest picture, and what happens when they go away."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

import av
import numpy as np

from samg_fast.checks import Frame, check_number, describe, is_whole
from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.media.streams import AV_ERRORS, av_reason

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["Camera"]

_log = logging.getLogger("samg_fast")

_SILENCE = 5.0  # seconds without data, after which a connection counts as lost
_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds before each attempt to connect again; the last one repeats


class Camera:
    """A camera's newest picture, read on a thread of its own.

    Pictures that nobody asks for in time are dropped. A camera that goes away is said (logger ``samg_fast``) and opened
    again. Use it as a context manager, or `close` it.

    Parameters
    ----------
    source : int or str
        The number of a camera of this machine, or the address of a stream that FFmpeg reads: ``rtsp://…``, ``http://…``,
        ``udp://…``, ``tcp://…``.
    patience : float
        Seconds without a picture, after which the camera counts as gone for good.

    Raises
    ------
    InputTypeError, InputError
        `source` is neither, or a number is out of its range.
    FileError
        The camera cannot be opened.
    """

    def __init__(self, source: int | str, *, patience: float = 30.0) -> None:
        self._address, self._format, self._options = _addressed(source)
        self._patience = check_number("patience", patience, "above 0", lambda seconds: seconds > 0)
        self.name = str(source)
        self._new = threading.Condition()
        self._frame: Frame | None = None  # not asked for yet
        self._last = monotonic()
        self._ended = threading.Event()
        self.seen = 0
        try:
            container = self._connect()
        except (*AV_ERRORS, OSError) as error:
            raise FileError(f"cannot open camera {self.name}: {av_reason(error)}") from error
        self._thread = threading.Thread(target=self._run, args=(container,), name="samg-fast camera", daemon=True)
        self._thread.start()

    def read(self, timeout: float | None = None) -> Frame | None:
        """Return the newest picture that was not returned before, (H, W, 3) uint8 RGB; wait for one.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most; then the answer is None. By default as long as the camera's patience.

        Raises
        ------
        FileError
            The camera is gone for good, or was closed.
        """
        until = None if timeout is None else monotonic() + timeout
        with self._new:
            while self._frame is None:
                if self._ended.is_set():
                    raise FileError(f"camera {self.name} is closed")
                left = self._last + self._patience - monotonic()
                if left <= 0:
                    raise FileError(f"camera {self.name} is gone: it gave no picture for {self._patience:g} s")
                if until is not None:
                    left = min(left, until - monotonic())
                    if left <= 0:
                        return None
                self._new.wait(left)
            frame, self._frame = self._frame, None
            return frame

    def __iter__(self) -> Iterator[Frame]:
        """Yield pictures as they come, until the camera is closed."""
        while not self._ended.is_set():
            try:
                frame = self.read()
            except FileError:
                if self._ended.is_set():
                    return
                raise
            if frame is not None:
                yield frame

    def close(self) -> None:
        """Let the camera go. Closing twice does no harm."""
        with self._new:
            self._ended.set()
            self._frame = None
            self._new.notify_all()
        self._thread.join(_SILENCE + 1)

    def __enter__(self) -> Camera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> InputContainer:
        container = av.open(self._address, format=self._format, options=self._options, timeout=_SILENCE)
        if not container.streams.video:
            container.close()
            raise OSError("it has no picture track")
        return container

    def _run(self, container: InputContainer | None) -> None:
        """Read pictures, and connect again whenever there are no more."""
        attempt, gone = 0, 0.0
        while not self._ended.is_set():
            reason = "its stream ended"
            try:
                container = container or self._connect()
                with container:
                    for picture in container.decode(container.streams.video[0]):
                        if gone:
                            _log.warning("camera %s is back after %.1f s", self.name, monotonic() - gone)
                        attempt, gone = 0, 0.0
                        self._show(np.asarray(picture.to_ndarray(format="rgb24"), np.uint8))
                        if self._ended.is_set():
                            return
            except av.error.ExitError:  # FFmpeg was interrupted
                reason = f"it sent nothing for {_SILENCE:g} s"
            except (*AV_ERRORS, OSError) as error:
                reason = av_reason(error)
            container = None
            if not gone:
                gone = monotonic()
                _log.warning("camera %s is gone (%s): trying again", self.name, reason)
            self._ended.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    def _show(self, frame: Frame) -> None:
        with self._new:
            self._frame, self._last = None if self._ended.is_set() else frame, monotonic()
            self.seen += 1
            self._new.notify_all()


def _addressed(source: object) -> tuple[str, str | None, dict[str, str]]:
    """Return what FFmpeg opens, as which format, with which options."""
    if is_whole(source) or (isinstance(source, str) and source.isdecimal()):
        number = int(source)
        if number < 0:
            raise InputError(f"source must be a camera's number from 0, not {number}")
        if sys.platform == "darwin":
            return f"{number}", "avfoundation", {}
        if sys.platform == "win32":
            raise InputError("source must be the address of a stream: cameras have no numbers on Windows")
        return f"/dev/video{number}", "v4l2", {}
    if not isinstance(source, str):
        raise InputTypeError(f"source must be a camera's number or address, not {describe(source)}")
    if "://" not in source:
        raise InputError(f"source must be a camera's number, or an address such as rtsp://…, not {source!r}")
    # Pictures at once, in order: of UDP, a lost packet is a spoiled picture
    return source, None, {"fflags": "nobuffer", "rtsp_transport": "tcp"}
