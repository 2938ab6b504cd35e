"""The stack of latest images that the frame stacks of dm_env and gymnasium share."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from samg_fast.checks import Frame
from samg_fast.errors import InputError

__all__ = ["Stack"]


class Stack:
    """The latest images, channels first, oldest image first.

    Parameters
    ----------
    num_frames : int
        Number of images to stack.
    name : str
        The images' name, for error messages.
    spec : dm_env's spec or a gymnasium space
        That of one image: (H, W, C) or (1, H, W, C) uint8; grey, RGB, or RGB and a mask.

    Attributes
    ----------
    shape : (int, int, int)
        (C * num_frames, H, W).

    Raises
    ------
    InputError
        The observations are not such images, or are stacked already.
    """

    def __init__(self, num_frames: int, name: str, spec: Any) -> None:
        shape, dtype = getattr(spec, "shape", None) or (), getattr(spec, "dtype", None)
        if dtype != np.uint8 or len(shape) < 3 or math.prod(shape[:-3]) != 1:
            raise InputError(f"env: {name} must be (H, W, C) uint8 pictures to be stacked, they are {spec}")
        self._height, self._width, self._channels = map(int, shape[-3:])
        if self._channels not in (1, 3, 4):
            raise InputError(
                f"env: {name} must have 1, 3 or 4 channels, which come last, and not shape {tuple(shape)}: what is "
                "stacked already is made with frame_stack=None"
            )
        self._count, self._frames = num_frames, deque[Frame](maxlen=num_frames)
        self.shape = (num_frames * self._channels, self._height, self._width)

    def __call__(self, image: Frame, *, first: bool) -> Frame:
        """Add an image and return the stack, `shape` uint8; the first image of an episode fills it."""
        channels_first = image.reshape(self._height, self._width, self._channels).transpose(2, 0, 1)
        frame = np.array(channels_first, order="C")  # a copy, as an environment may reuse its buffer
        self._frames.extend([frame] * (self._count if first else 1))
        return np.concatenate(self._frames)
