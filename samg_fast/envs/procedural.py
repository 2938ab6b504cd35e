"""Moving backgrounds that need no files: drifting noise, waves, stripes and shapes, generated from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ProceduralClip", "procedural_clip"]


def procedural_clip(seed: int, size: tuple[int, int] = (128, 128)) -> ProceduralClip:
    """Build a moving background from a seed.

    Parameters
    ----------
    seed : int
        The same seed gives the same clip to the pixel.
    size : (height, width)

    Returns
    -------
    ProceduralClip
    """
    return ProceduralClip(seed, size)


@dataclass(frozen=True)
class ProceduralClip:
    """Layers of drifting noise, waves, stripes and shapes, determined by the seed.

    Attributes
    ----------
    seed : int
    size : (height, width)
    """

    seed: int
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of the clip, from its seed."""
        return f"procedural-{self.seed}"

    @cached_property
    def _layers(self) -> list[_Layer]:
        rng = np.random.default_rng(self.seed)
        kinds: list[Callable[[np.random.Generator], _Layer]] = [_Noise, _Noise, _Waves, _Checks, _Shapes]
        layers: list[_Layer] = [_Noise(rng) if rng.random() < 0.7 else _Waves(rng)]
        for _ in range(rng.integers(0, 4)):
            layers.append(kinds[rng.integers(len(kinds))](rng))
        return layers

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return image ``t`` as (height, width, 3) uint8."""
        height, width = self.size
        rows = ((np.arange(height, dtype=np.float32) + 0.5) / height).astype(np.float32)
        columns = ((np.arange(width, dtype=np.float32) + 0.5) / height).astype(np.float32)
        ys, xs = np.meshgrid(rows, columns, indexing="ij")
        image = np.zeros((height, width, 3), np.float32)
        for layer in self._layers:
            image = layer.paint(image, ys, xs, float(t))
        return (np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


class _Layer(Protocol):
    def paint(
        self, under: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32], t: float
    ) -> NDArray[np.float32]: ...


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.random(3, dtype=np.float32)


def _mix(alpha: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    return low + alpha[..., None] * (high - low)


class _Noise:
    """Drifting noise of several octaves between two or three colours."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.colours = [_colour(rng) for _ in range(3)]
        base = int(rng.integers(2, 9))
        self.octaves = [rng.random((base << i, base << i), dtype=np.float32) for i in range(int(rng.integers(2, 5)))]
        self.drift = rng.normal(0.0, 0.01, (len(self.octaves), 2))
        self.opacity = float(rng.uniform(0.5, 1.0))
        self.sharpness = float(rng.uniform(1.0, 6.0))

    def paint(
        self, under: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32], t: float
    ) -> NDArray[np.float32]:
        total, weight = np.zeros_like(ys), 0.0
        for index, grid in enumerate(self.octaves):
            gain = 0.6**index
            total += gain * _sample_periodic(grid, ys + self.drift[index, 0] * t, xs + self.drift[index, 1] * t)
            weight += gain
        value = np.clip((total / weight - 0.5) * self.sharpness + 0.5, 0.0, 1.0)
        low, middle, high = self.colours
        painted = np.where(
            value[..., None] < 0.5, _mix(value * 2.0, low, middle), _mix(value * 2.0 - 1.0, middle, high)
        )
        return under + self.opacity * (painted - under) if under.any() else painted


def _sample_periodic(
    grid: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32]
) -> NDArray[np.float32]:
    n = len(grid)
    y, x = (ys % 1.0) * n, (xs % 1.0) * n
    y0, x0 = y.astype(np.int32), x.astype(np.int32)
    fy, fx = y - y0, x - x0
    y0, x0 = y0 % n, x0 % n
    y1, x1 = (y0 + 1) % n, (x0 + 1) % n
    top = grid[y0, x0] * (1.0 - fx) + grid[y0, x1] * fx
    bottom = grid[y1, x0] * (1.0 - fx) + grid[y1, x1] * fx
    result: NDArray[np.float32] = (top * (1.0 - fy) + bottom * fy).astype(np.float32)
    return result


class _Waves:
    """Interfering sine waves between two colours."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.low, self.high = _colour(rng), _colour(rng)
        count = int(rng.integers(1, 4))
        self.direction = rng.normal(0.0, 1.0, (count, 2)) * rng.uniform(3.0, 40.0, (count, 1))
        self.speed = rng.normal(0.0, 0.3, count)
        self.opacity = float(rng.uniform(0.4, 1.0))

    def paint(
        self, under: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32], t: float
    ) -> NDArray[np.float32]:
        phase = np.zeros_like(ys)
        for (dy, dx), speed in zip(self.direction, self.speed, strict=True):
            phase += np.sin(dy * ys + dx * xs + speed * t).astype(np.float32)
        value = (0.5 + 0.5 * phase / len(self.speed)).astype(np.float32)
        painted = _mix(value, self.low, self.high)
        return under + np.float32(self.opacity) * (painted - under)


class _Checks:
    """A drifting, rotating chequerboard or stripes, as on many floors."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.low, self.high = _colour(rng), _colour(rng)
        self.frequency = rng.uniform(2.0, 16.0, 2) * (rng.random(2) < 0.8)
        self.angle, self.turn = float(rng.uniform(0.0, np.pi)), float(rng.normal(0.0, 0.01))
        self.drift = rng.normal(0.0, 0.01, 2)
        self.horizon = float(rng.uniform(0.0, 0.8)) if rng.random() < 0.6 else 0.0
        self.opacity = float(rng.uniform(0.4, 1.0))

    def paint(
        self, under: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32], t: float
    ) -> NDArray[np.float32]:
        angle = self.angle + self.turn * t
        # With a horizon, a floor in perspective below it; without one, a wall.
        depth = 1.0 / np.maximum(ys - self.horizon + 0.15, 0.15) if self.horizon else np.ones_like(ys)
        u, v = (xs - 0.5) * depth + self.drift[0] * t, (depth if self.horizon else ys) + self.drift[1] * t
        p = np.floor((u * np.cos(angle) - v * np.sin(angle)) * self.frequency[0])
        q = np.floor((u * np.sin(angle) + v * np.cos(angle)) * self.frequency[1])
        painted = _mix(((p + q) % 2).astype(np.float32), self.low, self.high)
        alpha = (self.opacity * (ys >= self.horizon)).astype(np.float32)[..., None]
        return under + alpha * (painted - under)


class _Shapes:
    """Drifting ellipses and boxes, some shaded like solids: distractors that look like robot parts."""

    def __init__(self, rng: np.random.Generator) -> None:
        count = int(rng.integers(1, 9))
        self.centre = rng.random((count, 2))
        self.velocity = rng.normal(0.0, 0.012, (count, 2))
        self.half = rng.uniform(0.03, 0.25, (count, 2)) * rng.choice([0.4, 1.0], (count, 2))
        self.angle, self.turn = rng.uniform(0.0, np.pi, count), rng.normal(0.0, 0.03, count)
        self.power = rng.choice([2.0, 2.0, 8.0], count)
        self.colour = rng.random((count, 3))
        self.shade = rng.random(count) * (rng.random(count) < 0.6)

    def paint(
        self, under: NDArray[np.float32], ys: NDArray[np.float32], xs: NDArray[np.float32], t: float
    ) -> NDArray[np.float32]:
        image = under.copy()
        for i in range(len(self.centre)):
            cy, cx = (self.centre[i] + self.velocity[i] * t) % 1.4 - 0.2
            angle = self.angle[i] + self.turn[i] * t
            u = ((xs - cx) * np.cos(angle) + (ys - cy) * np.sin(angle)) / self.half[i, 0]
            v = ((ys - cy) * np.cos(angle) - (xs - cx) * np.sin(angle)) / self.half[i, 1]
            radius = np.abs(u) ** self.power[i] + np.abs(v) ** self.power[i]
            light = (1.0 - self.shade[i] * np.clip(v * 0.5 + 0.5, 0.0, 1.0))[..., None]
            image = np.where((radius < 1.0)[..., None], (self.colour[i] * light).astype(np.float32), image)
        return image
