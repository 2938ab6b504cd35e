"""The page's server: what it answers, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

import samg_fast
from samg_fast.annotate import FrameList, PageServer, Session
from samg_fast.errors import InputError
from samg_fast.samples import load_pack

WALKER = load_pack().tasks["walker_walk"]
FRAMES = FrameList("walker.mp4", ("a", "b"), tuple(WALKER.settings["original"][0][:5:4]))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    with samg_fast.load("tiny", backend="onnxruntime", threads=1) as segmenter:
        made = PageServer(Session(tmp_path / "session", FRAMES, segmenter))
        thread = threading.Thread(target=made.run)
        thread.start()
        yield made
        made.stop()
        thread.join(20)
        assert not thread.is_alive()


def ask(
    server: PageServer, path: str, body: Any = None, *, root: str | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Ask for a path below the page's, or below another root."""
    at = urlsplit(server.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    if data is not None:
        sent["Origin"] = f"http://{at.netloc}"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if data is None else "POST", (at.path if root is None else root) + path, data, sent)
    response = connection.getresponse()
    content = response.read()
    kind = response.headers.get_content_type()
    connection.close()
    return response.status, json.loads(content) if kind == "application/json" else content, dict(response.headers)


def test_a_session_over_http(server: PageServer, tmp_path: Path) -> None:
    assert ask(server, "api/state")[1]["objects"] == []
    assert ask(server, "api/do", {"do": "add", "name": "walker"})[0] == 200
    box = {"kind": "box", "box": [20, 8, 64, 72]}
    code, answer, _ = ask(server, "api/do", {"do": "act", "name": "walker", "frame": 0, "action": box})
    assert code == 200
    assert answer["found"]["walker"]["reference"]
    assert 100 < answer["found"]["walker"]["area"] < 1000
    assert answer["state"]["objects"] == [{"name": "walker", "references": [0]}]
    there = ask(server, "api/look/1")[1]["walker"]
    assert there["present"]
    assert not there["reference"]
    assert ask(server, "api/frame/1")[1].startswith(b"\x89PNG")
    assert ask(server, "api/do", {"do": "save"})[1]["written"][0] == "walker.safetensors"
    assert (tmp_path / "session" / "walker.safetensors").exists()
    assert ask(server, "api/do", {"do": "undo", "name": "walker", "frame": 0})[1]["found"] == {}


def test_the_page_and_its_modules_are_there(server: PageServer) -> None:
    code, page, headers = ask(server, "")
    assert code == 200
    assert b"samg-fast annotate" in page
    assert "default-src 'self'" in headers["content-security-policy"]
    for name in ("style.css", "main.js", "view.js", "api.js"):
        assert ask(server, f"page/{name}")[0] == 200
        assert name in page.decode() or name in ask(server, "page/main.js")[1].decode()
    assert b"http://" not in page
    assert b"https://" not in page


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 100_000, "the request is no JSON object"),
        (b"not json", "the request is no JSON object"),
        ([1], "the request is no JSON object"),
        ({}, "cannot be understood"),
        ({"do": "fly"}, "there is nothing called 'fly' to do"),
        ({"do": "add", "name": "../up"}, "is no name of an object"),
        ({"do": "act", "name": "x", "frame": 0, "action": {}}, "there is no object called 'x'"),
        ({"do": "save"}, "there is nothing to save yet"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(server: PageServer, body: Any, words: str) -> None:
    code, answer, _ = ask(server, "api/do", body)
    assert code == 400
    assert words in answer["error"]


def test_strangers_are_refused(server: PageServer) -> None:
    """Without the token, by another name, from another page, with too long a body, out of the folder."""
    host = urlsplit(server.url).netloc
    assert ask(server, "", root="/")[0] == 404
    assert ask(server, "api/state", root="/guess/")[0] == 404
    assert ask(server, "api/state", Host="attacker.example")[0] == 421
    assert ask(server, "api/state", Host="localhost")[0] == 421
    assert ask(server, "api/state", Origin="http://attacker.example")[0] == 403
    assert ask(server, "api/do", {"do": "add", "name": "a"}, Origin="null")[0] == 403
    assert ask(server, "api/state", Origin=f"http://{host}")[0] == 200
    assert ask(server, "api/do", {"do": "add", "name": "a"}, Origin="")[0] == 403
    assert ask(server, "api/do", b"{}", Transfer_Encoding="chunked")[0] in (400, 411)
    assert ask(server, "api/do", b" " * 1_000_001)[0] == 413
    assert ask(server, "api/do", b"{}", Content_Type="text/plain")[0] == 415
    for path in ("page/../../session.py", "page/%2e%2e/session.py", "page/..%2fsession.py"):
        assert ask(server, path)[0] == 404
    assert ask(server, "api/frame/2")[0] == 404
    assert ask(server, "api/look/2")[0] == 400
    assert ask(server, "api/state")[1]["objects"] == []


def test_it_listens_on_the_loopback_address_alone(server: PageServer) -> None:
    port = urlsplit(server.url).port
    assert server._socket.getsockname() == ("127.0.0.1", port)


def test_a_port_in_use(server: PageServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} cannot be used: .*; give another one, or 0"):
            PageServer(server._session, port)
