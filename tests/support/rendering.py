"""Marks the tests that render, and skips them by name where nothing can be rendered."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from samg_fast.envs.rendering import ensure_gl
from samg_fast.errors import SamgError


def _absent() -> str:
    """Say what is missing to render a dm_control task; nothing where nothing is."""
    missing = [name for name in ("mujoco", "dm_control") if find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    try:
        # While tests are collected, before any of them imports MuJoCo, which reads the choice when it is imported.
        ensure_gl()
        import mujoco

        mujoco.GLContext(8, 8).free()
    except (SamgError, ImportError, AttributeError, RuntimeError) as error:
        return f"OpenGL cannot start off-screen: {error}"
    return ""


_ABSENT = _absent()

needs_rendering = pytest.mark.skipif(bool(_ABSENT), reason=_ABSENT)
