"""The page's server: on the loopback address alone, behind a token in every address.

What a stranger may try is refused before anything is read: another Host (a name that was made to point here), another
Origin (a page that is open beside this one), an address without the token, a body that is too long. No path comes from
a request: frames have numbers, and objects names that are checked.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samg_fast.annotate.session import Found, Session
from samg_fast.checks import Mask
from samg_fast.errors import InputError, MissingExtraError, SamgError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
except ModuleNotFoundError as error:
    raise MissingExtraError("samg-fast annotate", "annotate") from error

__all__ = ["PageServer"]

_PAGE = Path(__file__).parent / "page"
_LONGEST = 1_000_000  # bytes of a request
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_Endpoint = Callable[[Request], Awaitable[Response]]


class PageServer:
    """Serves the page of a session.

    Parameters
    ----------
    session : Session
    port : int
        0 for one that is free.

    Attributes
    ----------
    url : str
        Where the page is, with the token.

    Raises
    ------
    InputError
        The port is in use.
    """

    def __init__(self, session: Session, port: int = 0) -> None:
        self._session = session
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            self._socket.close()
            raise InputError(f"port {port} cannot be used: {error.strerror}; give another one, or 0") from error
        self._socket.listen()  # a browser may come before `run`
        self._host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._token = secrets.token_urlsafe(24)
        self.url = f"http://{self._host}/{self._token}/"
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C, or `stop` from another thread."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run` return."""
        self._server.should_exit = True

    def _app(self) -> Any:
        inside = [
            Route("/", self._index),
            Route("/api/state", self._answer(lambda _: self._state())),
            Route("/api/frame/{number:int}", self._frame),
            Route("/api/look/{number:int}", self._answer(lambda request: self._look(request.path_params["number"]))),
            Route("/api/do", self._do, methods=["POST"]),
            Mount("/page", StaticFiles(directory=_PAGE)),
        ]
        return _Guard(Starlette(routes=[Mount(f"/{self._token}", routes=inside)]), self._host)

    async def _index(self, _: Request) -> Response:
        return Response((_PAGE / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    async def _frame(self, request: Request) -> Response:
        number = request.path_params["number"]
        frames = self._session.frames.frames
        if number >= len(frames):
            return JSONResponse({"error": f"there is no frame {number}"}, 404)
        picture = await run_in_threadpool(_png, frames[number])
        # Kept by the browser: the token is in the address, so it is of this session
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def _answer(self, what: Callable[[Request], Any]) -> _Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return JSONResponse(await run_in_threadpool(what, request))
            except SamgError as error:
                return JSONResponse({"error": str(error)}, 400)

        return answer

    async def _do(self, request: Request) -> Response:
        """Do what the body says, and answer with the frame it was done in."""
        body = await request.body()
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return JSONResponse({"error": "the request is no JSON object"}, 400)
        try:
            return JSONResponse(await run_in_threadpool(self._done, asked))
        except SamgError as error:
            return JSONResponse({"error": str(error)}, 400)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return JSONResponse({"error": f"the request cannot be understood: {error!r}"}, 400)

    def _done(self, asked: dict[str, Any]) -> dict[str, Any]:
        session, what = self._session, asked["do"]
        written: list[str] = []
        if what == "add":
            session.add(str(asked["name"]))
        elif what == "rename":
            session.rename(str(asked["name"]), str(asked["new"]))
        elif what == "remove":
            session.remove(str(asked["name"]))
        elif what == "act":
            session.act(str(asked["name"]), int(asked["frame"]), asked["action"])
        elif what == "undo":
            session.undo(str(asked["name"]), int(asked["frame"]))
        elif what == "save":
            written = session.save()
        else:
            raise InputError(f"there is nothing called {what!r} to do")
        seen = self._look(int(asked["frame"])) if "frame" in asked else {}
        return {"state": self._state(), "found": seen, "written": written}

    def _state(self) -> dict[str, Any]:
        session = self._session
        objects = [{"name": name, "references": session.references(name)} for name in session.names]
        return {
            "source": session.frames.name,
            "folder": str(session.folder),
            "frames": list(session.frames.names),
            "objects": objects,
        }

    def _look(self, frame: int) -> dict[str, Any]:
        return {name: _shown(each) for name, each in self._session.look(frame).items()}


class _Guard:
    """Refuses what does not come from the page itself."""

    def __init__(self, app: Any, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope["method"], headers)
        if refused is not None:
            await JSONResponse({"error": refused[1]}, refused[0])(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                sent = message.get("headers", [])
                there = {name for name, _ in sent}
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*sent, *(each for each in more if each[0] not in there)]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refused(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        if headers.get("host") != self._host:
            return 421, "this server answers on its own address alone"
        page = f"http://{self._host}"
        if headers.get("origin", "" if method == "POST" else page) != page:
            return 403, "this server answers its own page alone"
        if method == "POST":
            if "transfer-encoding" in headers:
                return 411, "the request does not say how long it is"
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return 411, "the request does not say how long it is"
            if int(length) > _LONGEST:
                return 413, f"the request is longer than {_LONGEST} bytes"
            if not headers.get("content-type", "").startswith("application/json"):
                return 415, "the request is no JSON"
        return None


def _png(image: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _shown(found: Found) -> dict[str, Any]:
    return {
        "mask": base64.b64encode(_png(_opaque(found.mask))).decode("ascii"),
        "area": int(found.mask.sum()),
        "reference": found.reference,
        "score": None if found.score is None else round(found.score, 3),
        "present": found.present,
    }


def _opaque(mask: Mask) -> Any:
    """Return white where the mask is, transparent elsewhere: what the page colours."""
    picture = np.full((*mask.shape, 4), 255, np.uint8)
    picture[..., 3] = np.where(mask, 255, 0)
    return picture
