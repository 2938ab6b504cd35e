"""A segmenter and frames whose masks are known, for the tests of the benchmark programs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import samg_fast
from samg_fast.errors import BackendError
from samg_fast.pipeline.stopwatch import STAGES

Masks = NDArray[np.bool_]


class FakeSegmenter:
    """Finds what `find` says, in a millisecond a stage."""

    threads = None

    def __init__(
        self, find: Callable[[NDArray[np.uint8]], Masks], backend: str = "fake", precision: str = "fp32"
    ) -> None:
        self.find, self.backend, self.precision = find, backend, precision
        self.bundle = SimpleNamespace(name="fake")
        self.seen: list[NDArray[np.uint8]] = []
        self.references: tuple[Any, Any] = ((), ())

    def __enter__(self) -> FakeSegmenter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def target_for(self, image: Any, mask: Any) -> str:
        """Return the only target there is."""
        self.references = image, mask
        return "target"

    def segment(self, frame: NDArray[np.uint8], target: str) -> Any:
        """Return the mask."""
        assert target == "target"
        self.seen.append(frame)
        return SimpleNamespace(mask=self.find(frame), timings=dict.fromkeys((*STAGES, "total"), 1.0))


def white(frame: NDArray[np.uint8]) -> Masks:
    """Find the white pixels."""
    return np.asarray((frame == 255).all(axis=-1))


def square(size: int, *, seen: bool = True) -> tuple[NDArray[np.uint8], Masks]:
    """Draw a white square of a side on 10 × 10 black pixels; as truth, 4 × 4 of it or nothing."""
    frame, truth = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.bool_)
    frame[:size, :size] = 255
    truth[:4, :4] = seen
    return frame, truth


def load_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `samg_fast.load` open a fake that finds nothing, in any precision but bf16."""

    def load(bundle: str, *, backend: str, precision: str, threads: int | None) -> FakeSegmenter:
        if precision == "bf16":
            raise BackendError("this machine has no bf16")
        return FakeSegmenter(lambda frame: np.zeros(frame.shape[:2], np.bool_), backend, precision)

    monkeypatch.setattr(samg_fast, "load", load, raising=False)
