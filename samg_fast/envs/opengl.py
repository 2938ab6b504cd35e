"""Which OpenGL MuJoCo renders with off-screen, and what to say where there is none."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from samg_fast.errors import MissingExtraError, RenderingError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "cannot_start",
    "check_process",
    "context_class",
    "ensure_gl",
    "own_context_kept",
    "renders_here",
]

_DEBIAN_PACKAGES = "libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
_PROBE = "import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()"


def cannot_start(error: Exception) -> RenderingError:
    """Say in words that rendering did not start: with which OpenGL, why, and which Debian packages mend it."""
    used = os.environ.get("MUJOCO_GL", "the default")
    return RenderingError(
        f"off-screen rendering cannot start with MUJOCO_GL={used} ({error}); on Debian install {_DEBIAN_PACKAGES}"
    )


def ensure_gl() -> str:
    """Choose an off-screen OpenGL for MuJoCo and say which.

    ``MUJOCO_GL`` is honoured if set. Otherwise EGL, then OSMesa are tried in a process of their own, since a failed
    attempt cannot be taken back inside this one.

    Returns
    -------
    str
        The value of ``MUJOCO_GL`` in force: "egl", "osmesa", "glfw" or whatever the user had set.

    Raises
    ------
    MissingExtraError
        MuJoCo is not installed.
    RenderingError
        Neither EGL nor OSMesa works here; names the Debian packages that mend it.
    """
    if importlib.util.find_spec("mujoco") is None:
        raise MissingExtraError("rendering", "dmc")
    chosen = os.environ.get("MUJOCO_GL")
    if chosen or sys.platform != "linux":
        return chosen or "default"
    for candidate in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": candidate, "PYOPENGL_PLATFORM": candidate}
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, check=False)
        if probe.returncode == 0:
            os.environ["MUJOCO_GL"] = candidate
            os.environ["PYOPENGL_PLATFORM"] = candidate
            return candidate
    raise RenderingError(
        "off-screen rendering cannot start: tried MUJOCO_GL=egl and MUJOCO_GL=osmesa; "
        f"on Debian install {_DEBIAN_PACKAGES}"
    )


def context_class() -> Any:
    """Return MuJoCo's class of off-screen OpenGL contexts: of `ensure_gl`'s choice, whenever MuJoCo was imported.

    ``mujoco.GLContext`` is what ``MUJOCO_GL`` said when somebody first imported MuJoCo, which may have been nothing.

    Raises
    ------
    MissingExtraError, RenderingError
        As `ensure_gl`.
    Exception
        Whatever MuJoCo and PyOpenGL raise where a library is missing; see `cannot_start`.
    """
    module = {"egl": "mujoco.egl", "osmesa": "mujoco.osmesa"}.get(ensure_gl(), "mujoco")
    return importlib.import_module(module).GLContext


_process: int | None = None
"""The process that has rendered first, among this one and those it was forked from."""


def check_process() -> None:
    """Note that this process renders, or raise `RenderingError` where it has its OpenGL from one it was forked from.

    Rendering would wait there for ever, for threads that no fork takes along.
    """
    global _process
    if _process not in (None, os.getpid()):
        raise RenderingError(
            "nothing can be rendered in a process forked from one that renders already: start it with "
            'multiprocessing\'s "spawn" or "forkserver", as in gymnasium.vector.AsyncVectorEnv(…, context="spawn")'
        )
    _process = os.getpid()


def renders_here() -> bool:
    """Whether it is this process that renders, and not one that it was forked from."""
    return _process == os.getpid()


@contextmanager
def own_context_kept() -> Iterator[None]:
    """Leave this thread, at the end, the EGL context that it has now, or none.

    So threads can take turns with a context, and dm_control, which trusts that its own stays, can render in between.
    """
    if "mujoco.egl" not in sys.modules:  # OSMesa's and GLFW's contexts stay with the thread that made them
        yield
        return
    from OpenGL import EGL  # type: ignore[import-untyped]  # it has no types

    display, context = EGL.eglGetCurrentDisplay(), EGL.eglGetCurrentContext()
    surfaces = [EGL.eglGetCurrentSurface(which) for which in (EGL.EGL_DRAW, EGL.EGL_READ)]
    try:
        yield
    finally:
        if context:
            EGL.eglMakeCurrent(display, *surfaces, context)
        else:
            EGL.eglReleaseThread()
