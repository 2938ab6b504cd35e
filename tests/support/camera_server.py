"""A camera that is a stream over the loopback address."""

from __future__ import annotations

import io
import socket
import threading

import av

from support.videos import moving_pictures

PICTURES = moving_pictures(30)


def stream() -> bytes:
    """Return the pictures as a transport stream, each decoded without the others."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.height, video.width, video.pix_fmt, video.gop_size = 48, 64, "yuv420p", 1
        for picture in PICTURES:
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in video.encode(None):
            container.mux(packet)
    return file.getvalue()


class CameraServer:
    """Sends the stream to whoever connects, and hangs up after it."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"
        self.calls = 0
        self.data = stream()
        self.hang_up = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.calls += 1
            with connection:
                try:
                    connection.sendall(self.data)
                    self.hang_up.wait(20)
                    self.hang_up.clear()
                except OSError:
                    continue

    def close(self) -> None:
        self.listening.close()
        self.hang_up.set()
