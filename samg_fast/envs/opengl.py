"""Chooses the OpenGL that MuJoCo renders with off-screen, and says what to install where none works."""

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
    "check_process",
    "context_class",
    "ensure_gl",
    "in_rendering_process",
    "preserved_context",
    "start_error",
]

_DEBIAN_PACKAGES = "libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
_PROBE = "import mujoco; c = mujoco.GLContext(8, 8); c.make_current(); c.free()"


def start_error(error: Exception) -> RenderingError:
    """Return the error for rendering that cannot start: which OpenGL was tried, why it failed, what to install."""
    used = os.environ.get("MUJOCO_GL", "the default")
    return RenderingError(
        f"off-screen rendering cannot start with MUJOCO_GL={used} ({error}); on Debian install {_DEBIAN_PACKAGES}"
    )


def ensure_gl() -> str:
    """Choose an off-screen OpenGL for MuJoCo and return its name.

    ``MUJOCO_GL`` is honoured if set. Otherwise EGL and then OSMesa are each tried in a subprocess, because a process
    cannot undo a failed attempt.

    Returns
    -------
    str
        The value of ``MUJOCO_GL`` in force: "egl", "osmesa", "glfw" or whatever the user had set.

    Raises
    ------
    MissingExtraError
        MuJoCo is not installed.
    RenderingError
        Neither EGL nor OSMesa works here; the message names the Debian packages to install.
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
    """Return MuJoCo's class of off-screen OpenGL contexts for the OpenGL that `ensure_gl` chooses.

    Not ``mujoco.GLContext``: that one depends on ``MUJOCO_GL`` as it was when MuJoCo was first imported, when it may
    not have been set.

    Raises
    ------
    MissingExtraError, RenderingError
        As `ensure_gl`.
    Exception
        Whatever MuJoCo and PyOpenGL raise where a library is missing; see `start_error`.
    """
    module = {"egl": "mujoco.egl", "osmesa": "mujoco.osmesa"}.get(ensure_gl(), "mujoco")
    return importlib.import_module(module).GLContext


_rendering_process: int | None = None
"""Process id of the first to render, among this process and those it was forked from."""


def check_process() -> None:
    """Record that this process renders; raise `RenderingError` if it was forked from one that already does.

    OpenGL's threads do not survive a fork, so rendering in the forked process would wait for them forever.
    """
    global _rendering_process
    if _rendering_process not in (None, os.getpid()):
        raise RenderingError(
            "nothing can be rendered in a process forked from one that renders already: start it with "
            'multiprocessing\'s "spawn" or "forkserver", as in gymnasium.vector.AsyncVectorEnv(…, context="spawn")'
        )
    _rendering_process = os.getpid()


def in_rendering_process() -> bool:
    """Whether this process itself started rendering, rather than one that it was forked from."""
    return _rendering_process == os.getpid()


@contextmanager
def preserved_context() -> Iterator[None]:
    """Restore the thread's current EGL context, or none, when the block ends.

    This lets threads take turns with a context, and lets dm_control render in between: it assumes that its own context
    stays current.
    """
    if "mujoco.egl" not in sys.modules:  # contexts of OSMesa and GLFW are bound to the thread that created them
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
