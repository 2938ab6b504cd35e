"""Prompts: points and a box in pixels of the frame, and the slots of the decoder they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samg_fast import ops
from samg_fast.checks import Box, Floats
from samg_fast.devices.base import Device
from samg_fast.ops.geometry import Letterbox

__all__ = ["NEGATIVE", "POSITIVE", "Prompt", "fill_slots"]

POSITIVE, NEGATIVE = 1, 0


@dataclass(frozen=True)
class Prompt:
    """What one decode is asked.

    Parameters
    ----------
    points : tuple of (x, y)
        Pixels of the frame.
    labels : tuple of int
        `POSITIVE` or `NEGATIVE` for each point.
    box : tuple, optional
        (x_min, y_min, x_max, y_max), in pixels of the frame.
    """

    points: tuple[tuple[int, int], ...]
    labels: tuple[int, ...]
    box: Box | None = None

    def refined(self, negative: tuple[int, int], box: Box) -> Prompt:
        """Return the prompt of the next decode: one more negative point, and the box of what was found."""
        return Prompt((*self.points, negative), (*self.labels, NEGATIVE), box)


def fill_slots(prompts: Sequence[Prompt], letterbox: Letterbox, slots: int, device: Device) -> tuple[Floats, Floats]:
    """Bring prompts to the prompt frame and into the decoder's slots.

    First the points, then the box's corners or SAM's "not a point", then empty slots. Prompts with fewer points than
    others leave slots empty between their points and their box.

    Parameters
    ----------
    prompts : sequence of B Prompt
        All with a box, or all without.
    letterbox : Letterbox
        The frame in the prompt frame.
    slots : int
        N, at least what the longest prompt needs.
    device : Device
        Where to do it.

    Returns
    -------
    point_coords : (B, N, 2) float32 array
        In pixels of the prompt frame, without SAM's +0.5.
    point_labels : (B, N) float32 array
    """
    most = max(len(prompt.points) for prompt in prompts)
    points = np.zeros((len(prompts), most, 2), np.int32)
    order = np.full((len(prompts), most), -1, np.int32)
    labels = np.zeros((len(prompts), most), np.int32)
    for index, prompt in enumerate(prompts):
        count = len(prompt.points)
        points[index, :count], labels[index, :count] = np.reshape(prompt.points, (-1, 2)), prompt.labels
        order[index, :count] = range(count)
    boxes = None if prompts[0].box is None else np.array([prompt.box for prompt in prompts], np.int32)
    scale = letterbox.scale_x, letterbox.scale_y
    return ops.prompt_assembly(points, order, labels, boxes, scale=scale, slots=slots, device=device)
