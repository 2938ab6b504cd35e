"""Runs a program on an OpenGL that cannot start."""

from __future__ import annotations

import os
import subprocess
import sys

from support.paths import ROOT

_PROGRAM = """
from samg_fast.errors import SamgError
from {module} import {name}
env = None
try:
    env = {call}
    env.reset()
except SamgError as error:
    print(error)
finally:
    if env is not None:
        env.close()
"""


def rendering_error(module: str, call: str, opengl: str) -> str:
    """Return what a program prints of the error when it builds an environment by `call`, and resets it.

    Parameters
    ----------
    module : str
        Where the function that `call` calls is imported from.
    call : str
        ``"make('walker_walk')"``.
    opengl : str
        ``MUJOCO_GL``: "egl", which finds no vendor, or any other that does not exist.
    """
    environment = {**os.environ, "MUJOCO_GL": opengl, "__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"}
    environment.pop("PYOPENGL_PLATFORM", None)
    program = _PROGRAM.format(module=module, name=call.partition("(")[0], call=call)
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout
