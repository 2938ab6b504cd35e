"""An HTTP server on this machine that serves one file, resumes it, and can fail in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `content` under every path, and keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.status: int | None = None
        """Answer with this status and nothing else."""
        self.cuts: list[int] = []
        """Close the connection after so many bytes of the body: one entry for each request, in turn."""
        self.resumes = True
        """Whether it knows Range."""
        self.gate = threading.Event()
        """Bodies wait for it; open unless a test closes it."""
        self.gate.set()
        self.requests: list[tuple[str, str | None]] = []
        """The path and the Range header of every request."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str | None]:
        return [header for _, header in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        header = self.headers.get("Range")
        server.requests.append((self.path, header))
        if len(server.requests) > 1:
            server.gate.set()  # who waited for one more request need not wait longer
        if server.status is not None:
            self.send_error(server.status)
            return
        start = int(header.removeprefix("bytes=").removesuffix("-")) if header and server.resumes else 0
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        server.gate.wait(60)
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Run a server in a thread while the block runs."""
    with FileServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join()
