"""Where the pictures are in an environment's observations."""

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
    """Where the pictures are in an observation; made by `find_pixels`.

    Parameters
    ----------
    key : str or None
        Of the pictures in a mapping; None where the observation is the pictures.
    shape : tuple of int
        (..., H, W, 3).
    """

    key: str | None
    shape: tuple[int, ...]

    @property
    def pictures(self) -> int:
        """How many pictures an observation holds."""
        return math.prod(self.shape[:-3])

    def read(self, observation: Any) -> Frame:
        """Return an observation's pictures.

        Returns
        -------
        (pictures, H, W, 3) uint8 array

        Raises
        ------
        InputTypeError, InputError
            There are none, or they have another dtype or shape than the environment promised.
        """
        if self.key is not None and self.key not in observation:
            names = ", ".join(map(repr, observation))
            raise InputError(f"observation must have {self.key!r}, as its space or spec says, not only {names}")
        pictures = observation if self.key is None else observation[self.key]
        kind = getattr(pictures, "dtype", None)
        if kind != np.uint8 or pictures.shape != self.shape:
            error = InputError if kind == np.uint8 else InputTypeError
            raise error(f"{_name(self.key)} must be uint8 RGB of shape {self.shape}, not {describe(pictures)}")
        frames: Frame = pictures.reshape(-1, *self.shape[-3:])
        return frames

    def write(self, observation: Any, pictures: Any) -> Any:
        """Return an observation with other pictures, or a space or spec of observations with another of pictures."""
        if self.key is None:
            return pictures
        # Ordered, as a gymnasium Dict sorts the names of any other mapping
        return type(observation)(OrderedDict({**observation, self.key: pictures}))


def find_pixels(spec: Any, key: str | None) -> tuple[Pixels, Any]:
    """Find the pictures in what an environment says of its observations.

    Parameters
    ----------
    spec : dm_env's specs or a gymnasium space
        An array's, or a mapping of names to arrays'.
    key : str or None
        Of the pictures in a mapping; None where there is none.

    Returns
    -------
    pixels : Pixels
    spec : spec or space
        Of the pictures alone.

    Raises
    ------
    InputError, InputTypeError
        There is no such key, or it holds no uint8 RGB pictures.
    """
    if isinstance(spec, Mapping):
        names = list(spec)  # `in` asks a gymnasium space for samples
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
