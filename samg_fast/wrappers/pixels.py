"""Finds the images in an environment's observations."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from samg_fast.checks import Frame, describe
from samg_fast.errors import InputError, InputTypeError

__all__ = ["Pixels", "find_pixels"]


class Pixels(NamedTuple):
    """Where the images are in an observation; built by `find_pixels`.

    Parameters
    ----------
    key : str or None
        Key of the images in a mapping; None if the observation is the images themselves.
    shape : tuple of int
        (..., H, W, 3).
    """

    key: str | None
    shape: tuple[int, ...]

    @property
    def images(self) -> int:
        """Number of images in an observation."""
        return math.prod(self.shape[:-3])

    def read(self, observation: Any) -> Frame:
        """Return an observation's images.

        Returns
        -------
        (images, H, W, 3) uint8 array

        Raises
        ------
        InputTypeError, InputError
            There are none, or their dtype or shape is not what the environment's spec or space says.
        """
        if self.key is not None and self.key not in observation:
            names = ", ".join(map(repr, observation))
            raise InputError(f"observation must have {self.key!r}, as its space or spec says, not only {names}")
        images = observation if self.key is None else observation[self.key]
        dtype = getattr(images, "dtype", None)
        if dtype != np.uint8 or images.shape != self.shape:
            error = InputError if dtype == np.uint8 else InputTypeError
            raise error(f"{_name(self.key)} must be uint8 RGB of shape {self.shape}, not {describe(images)}")
        frames: Frame = images.reshape(-1, *self.shape[-3:])
        return frames

    def write(self, observation: Any, images: Any) -> Any:
        """Return a copy of an observation with its images replaced; likewise for a space or spec of observations."""
        if self.key is None:
            return images
        # An OrderedDict, because a gymnasium Dict sorts the names of any other mapping
        return type(observation)(OrderedDict({**observation, self.key: images}))


def find_pixels(spec: Any, key: str | None) -> tuple[Pixels, Any]:
    """Find the images in an environment's observation spec or space.

    Parameters
    ----------
    spec : dm_env's specs or a gymnasium space
        Of an array, or a mapping from names to those of arrays.
    key : str or None
        Key of the images in a mapping; None if it is not a mapping.

    Returns
    -------
    pixels : Pixels
    spec : spec or space
        That of the images alone.

    Raises
    ------
    InputError, InputTypeError
        There is no such key, or it does not hold uint8 RGB images.
    """
    if isinstance(spec, Mapping):
        names = list(spec)  # a list: `in` on a gymnasium space tests for samples, not for names
        if key not in names:
            raise InputError(f"pixels_key must be one of the observation's {', '.join(map(repr, names))}, not {key!r}")
        spec = spec[key]
    elif key is not None:
        raise InputError(f"pixels_key must be None where the observation is one array, not {key!r}")
    shape, dtype = getattr(spec, "shape", None), getattr(spec, "dtype", None)
    if not shape or dtype is None:
        raise InputTypeError(f"{_name(key)} must be uint8 RGB of shape (H, W, 3), not {type(spec).__name__}")
    if dtype != np.uint8:
        raise InputTypeError(f"{_name(key)} must be uint8 RGB of shape (H, W, 3), not {dtype} of shape {shape}")
    if len(shape) < 3 or shape[-1] != 3:
        raise InputError(
            f"{_name(key)} must be uint8 RGB of shape (H, W, 3), not {dtype} of shape {shape}: mask frames before they "
            "are stacked, transposed or made grey"
        )
    return Pixels(key, tuple(int(side) for side in shape)), spec


def _name(key: str | None) -> str:
    return "observation" if key is None else f"observation[{key!r}]"
