"""Cheap environments with pictures, and a segmenter that finds colours in them: what the wrappers' tests wrap.

A picture has a red, a green and a blue square on grey noise; each moves on by a pixel with every step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import dm_env
import gymnasium
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from samg_fast import Segmenter
from samg_fast.objects import gathered
from samg_fast.results import Segmentation
from samg_fast.target import EQUAL_WEIGHTS, Target

SIZE = 24
FINGERPRINT = "f" * 64
RED, GREEN, BLUE = range(3)


def squares(t: int, noise: int = 0) -> NDArray[np.uint8]:
    """Draw the picture of a step, (SIZE, SIZE, 3) uint8."""
    picture = np.full((SIZE, SIZE, 3), 20, np.uint8) + np.random.default_rng(noise).integers(0, 50, (SIZE, SIZE, 1))
    for channel in (RED, GREEN, BLUE):
        left = (5 * channel + t) % (SIZE - 4)
        picture[8 * channel : 8 * channel + 4, left : left + 4] = 200 * np.eye(3)[channel]
    return picture.astype(np.uint8)


def is_colour(pictures: NDArray[np.uint8], channel: int) -> NDArray[np.bool_]:
    """Say where a square is: true masks of `squares`."""
    return pictures[..., channel] == 200


def target_of(channel: int, fingerprint: str = FINGERPRINT, parts: int = 0) -> Target:
    """Make a target that stands for a colour."""
    feature = np.full(1, channel, np.float32)
    of_parts = np.zeros((parts, 1), np.float32)
    return Target(
        sam=feature,
        dino=feature,
        parts_sam=of_parts,
        parts_dino=of_parts,
        mask_weights=EQUAL_WEIGHTS,
        part_is_point=np.zeros(parts, np.bool_),
        bundle="colours",
        fingerprint=fingerprint,
    )


class ColourFinder:
    """Stands in for a segmenter: finds the target's colour, as sure as the next of `scores` says."""

    bundle = SimpleNamespace(
        name="colours",
        fingerprint=FINGERPRINT,
        fitted=None,
        prompted=SimpleNamespace(max_parts=2),
        manifest=SimpleNamespace(present=None),
    )
    check_target = Segmenter.check_target

    def __init__(self, scores: Iterable[float] = repeat(0.9)) -> None:
        self.scores = iter(scores)
        self.identified: list[tuple[Any, ...]] = []
        self.batches: list[int] = []

    def identify(self, *reference: Any) -> Target:
        self.identified.append(reference)
        return target_of(RED)

    def segment_batch(self, frames: NDArray[np.uint8], targets: Any) -> list[Any]:
        if isinstance(targets, dict):
            every = np.repeat(frames, len(targets), axis=0)
            return gathered(targets, self.segment_batch(every, [*targets.values()] * len(frames)))
        self.batches.append(len(frames))
        return [
            Segmentation(
                frame=frame.copy(),
                mask=is_colour(frame, int(target.sam[0])),
                score=next(self.scores),
                box=None,
                timings={},
            )
            for frame, target in zip(frames, targets, strict=True)
        ]


class SquaresDm(dm_env.Environment):
    """Speaks dm_env; an episode has `length` steps and is truncated."""

    def __init__(self, length: int = 4, lead: tuple[int, ...] = (), spec: Any = None) -> None:
        self.length, self.lead, self.closed = length, lead, 0
        self.shown: list[NDArray[np.uint8]] = []
        self._spec = spec
        self._t: int | None = None

    def reset(self) -> dm_env.TimeStep:
        self._t = 0
        return dm_env.restart(self._observation())

    def step(self, action: Any) -> dm_env.TimeStep:
        if self._t is None:
            return self.reset()
        self._t += 1
        if self._t < self.length:
            return dm_env.transition(float(self._t), self._observation(), 0.5)
        last = dm_env.truncation(float(self._t), self._observation(), 1.0)
        self._t = None
        return last

    def observation_spec(self) -> Any:
        pixels = specs.Array((*self.lead, SIZE, SIZE, 3), np.uint8, "picture")
        return self._spec or OrderedDict(pixels=pixels, time=specs.Array((), np.int64))

    def action_spec(self) -> Any:
        return specs.BoundedArray((1,), np.float32, -1, 1)

    def reward_spec(self) -> Any:
        return specs.Array((), float, "progress")

    def discount_spec(self) -> Any:
        return specs.BoundedArray((), float, 0.25, 1.0, "patience")

    def close(self) -> None:
        self.closed += 1

    def greet(self) -> str:
        return "hello"

    def _observation(self) -> Any:
        assert self._t is not None
        self.shown.append(squares(self._t, len(self.shown)))
        return OrderedDict(pixels=self.shown[-1].reshape(*self.lead, SIZE, SIZE, 3), time=np.int64(self._t))


class SquaresGym(gymnasium.Env[Any, Any]):
    """Speaks gymnasium; an episode has `length` steps and is truncated, or terminated if it is to be."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # gymnasium's own way

    def __init__(
        self, length: int = 4, key: str | None = None, terminates: bool = False, render_mode: str | None = None
    ) -> None:
        box = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        time = gymnasium.spaces.Box(0, 1000, (1,), np.float32)
        # The names are in no alphabetical order, and stay so
        self.observation_space = box if key is None else gymnasium.spaces.Dict([("time", time), (key, box)])
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.length, self.key, self.terminates, self.render_mode = length, key, terminates, render_mode
        self.closed = 0
        self.gravity = 9.81

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return self._observation(), {"t": self._t}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        ends = self._t >= self.length
        return (
            self._observation(),
            float(self._t),
            ends and self.terminates,
            ends and not self.terminates,
            {"t": self._t},
        )

    def render(self) -> Any:
        return self.picture

    def close(self) -> None:
        self.closed += 1

    def greet(self) -> str:
        return "hello"

    def _observation(self) -> Any:
        self.picture = squares(self._t, int(self.np_random.integers(1 << 30)))
        if self.key is None:
            return self.picture
        self.time = np.array([self._t], np.float32)
        return {"time": self.time, self.key: self.picture}
