"""Where figures come from: the command, the device, the commit and the versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from samg_fast import __version__
from samg_fast.devices import machine

__all__ = ["heading", "provenance"]

_PACKAGES = ("numpy", "openvino", "onnxruntime", "torch", "nncf", "mujoco", "dm_control", "gymnasium")


def provenance(more: Sequence[str] = ()) -> dict[str, Any]:
    """Return where figures come from.

    Parameters
    ----------
    more : sequence of str
        Distributions whose versions matter too, where they are installed.

    Returns
    -------
    dict
        ``command``, ``device`` (processor and usable cores), ``system``, ``commit`` (with ``+changes`` where files
        differ from it; None outside a repository) and ``versions``.
    """
    versions = {"samg_fast": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None)
    program = f"python -m {module.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name
    return {
        "command": " ".join([program, *sys.argv[1:]]),
        "device": machine.processor(),
        "system": platform.platform(terse=True),
        "commit": _commit(),
        "versions": versions,
    }


def heading(about: Mapping[str, Any], scope: str, hardware: str = "") -> str:
    """Return the lines above a table: the command, what was measured, and on what.

    Parameters
    ----------
    about : mapping
        As `provenance` returns it.
    scope : str
        What was measured, in one line.
    hardware : str
        More than the processor, where something else ran.
    """
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    return (
        f"`{about['command']}`\n\n{scope}\n"
        f"{hardware or about['device']}; commit {about['commit'] or 'unknown'}; {versions}\n"
    )


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    here = Path(__file__)
    try:
        git("ls-files", "--error-unmatch", here.name)  # installed, it may lie in someone else's repository
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None
