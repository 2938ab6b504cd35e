"""A camera that is a stream over the loopback address: newest pictures, interruptions, and the end."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from samg_fast.errors import FileError, InputError, InputTypeError
from samg_fast.media import Camera
from support.camera_server import PICTURES, CameraServer


@pytest.fixture
def server() -> Iterator[CameraServer]:
    opened = CameraServer()
    yield opened
    opened.close()


def until(condition: object, seconds: float = 20.0) -> None:
    """Wait until a callable is true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def test_the_newest_picture_comes_once(server: CameraServer) -> None:
    with Camera(server.address) as camera:
        until(lambda: camera.seen >= 5)  # what FFmpeg needs to know the stream is left out
        time.sleep(0.5)  # the server sends no more
        newest, seen = camera.read(), camera.seen
        assert newest is not None
        assert (newest.shape, newest.dtype) == ((48, 64, 3), np.uint8)
        apart = [np.abs(newest.astype(int) - picture).mean() for picture in PICTURES]
        assert min(apart) < 30  # 18: the stream is lossy
        assert np.median(apart) > 60  # 84: what two pictures are apart
        assert camera.read(0.0) is None
        assert camera.seen == seen


def test_it_waits_no_longer_than_asked(server: CameraServer) -> None:
    with Camera(server.address) as camera:
        until(lambda: camera.seen > 0)
        while camera.read(0.3) is not None:
            pass
        began = time.monotonic()
        assert camera.read(0.05) is None
        assert time.monotonic() - began < 2


def test_a_camera_that_goes_away_is_said_and_opened_again(
    server: CameraServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "samg_fast"), Camera(server.address) as camera:
        pictures = iter(camera)
        next(pictures)
        server.hang_up.set()
        until(lambda: server.calls >= 2)
        before = camera.seen
        until(lambda: camera.seen > before)
        next(pictures)
    words = [record.getMessage() for record in caplog.records]
    assert words[0].startswith(f"camera {server.address} is gone (")
    assert words[0].endswith("): trying again")
    assert any("is back after" in each for each in words)


def test_a_camera_that_is_gone_for_good(server: CameraServer) -> None:
    with Camera(server.address, patience=1.0) as camera:
        camera.read()
        server.close()
        with pytest.raises(FileError, match="is gone: it gave no picture for 1 s"):
            for _ in camera:
                pass


def test_a_closed_camera_ends_its_pictures(server: CameraServer) -> None:
    camera = Camera(server.address)
    pictures = iter(camera)
    next(pictures)
    camera.close()
    camera.close()
    assert list(pictures) == [] or camera.seen  # one may have been waiting
    assert list(camera) == []
    with pytest.raises(FileError, match="is closed"):
        camera.read()


def test_no_camera() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FileError, match=f"cannot open camera {address}: Connection refused"):
        Camera(address)


@pytest.mark.skipif(sys.platform != "linux", reason="cameras have other names here")
def test_a_number_is_a_device() -> None:
    with pytest.raises(FileError, match="cannot open camera 97: No such file"):
        Camera(97)


@pytest.mark.parametrize(("source", "words"), [("walker.mp4", "not 'walker.mp4'"), (-1, "from 0, not -1")])
def test_bad_sources(source: int | str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Camera(source)


def test_a_source_of_another_type() -> None:
    with pytest.raises(InputTypeError, match="source must be a camera's number or address, not None"):
        Camera(None)  # type: ignore[arg-type]
