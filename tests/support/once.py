"""What is expensive to make is made once a run, whichever process of pytest-xdist asks for it first."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

__all__ = ["once"]

Made = TypeVar("Made")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """Return what `make` returned for a folder of its own; a process that asks later waits, and gets a copy.

    No test may change the folder.
    """
    mine = factory.getbasetemp()
    run = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    kept = run / f"{name}.pickle"
    with FileLock(run / f"{name}.lock"):
        if kept.exists():
            copy: Made = pickle.loads(kept.read_bytes())
            return copy
        folder = run / name
        folder.mkdir(exist_ok=True)
        made = make(folder)
        kept.write_bytes(pickle.dumps(made))
    return made
