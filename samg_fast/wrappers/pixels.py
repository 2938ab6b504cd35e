"""Finds the images in an environment's observations."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from samg_fast.checks import Frame, describe
from samg_fast.errors import InputError, InputTypeError

__all__ = ["Pixels", "PixelsKey", "find_pixels", "get_part", "put_part"]

PixelsKey: TypeAlias = str | int | Sequence[str | int] | None
"""Where images are in an observation: a name in a mapping, an index in a tuple, or a sequence of these, the path to
what is nested; None where the observation is the images themselves."""


class Pixels(NamedTuple):
    """Where the images are in an observation; built by `find_pixels`.

    Parameters
    ----------
    key : PixelsKey
        Name, index or path of the images; None if the observation is the images themselves.
    shape : tuple of int
        (..., H, W, 3).
    """

    key: PixelsKey
    shape: tuple[int, ...]

    @property
    def images(self) -> int:
        """Number of images in an observation."""
        return math.prod(self.shape[:-3])

    def read(self, observation: Any, whole: str = "observation") -> Frame:
        """Return an observation's images.

        Parameters
        ----------
        observation : array, mapping or tuple
        whole : str
            What errors call it.

        Returns
        -------
        (images, H, W, 3) uint8 array

        Raises
        ------
        InputTypeError, InputError
            There are none, or their dtype or shape is not what the environment's spec or space says.
        """
        images = get_part(observation, self.key, whole)
        dtype = getattr(images, "dtype", None)
        if dtype != np.uint8 or images.shape != self.shape:
            error = InputError if dtype == np.uint8 else InputTypeError
            raise error(f"{_name(self.key, whole)} must be uint8 RGB of shape {self.shape}, not {describe(images)}")
        frames: Frame = images.reshape(-1, *self.shape[-3:])
        return frames

    def write(self, observation: Any, images: Any) -> Any:
        """Return a copy of an observation with its images replaced; likewise for a space or spec of observations."""
        return put_part(observation, self.key, images)


def find_pixels(spec: Any, key: PixelsKey) -> tuple[Pixels, Any]:
    """Find the images in an environment's observation spec or space.

    Parameters
    ----------
    spec : dm_env's specs or a gymnasium space
        Of an array, or a mapping or tuple of such specs or spaces.
    key : PixelsKey
        Where the images are; None if the observation is the images themselves.

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
    path = _path(key)
    for depth, step in enumerate(path):
        there, where = _entries(spec), _name(path[:depth])
        if there is None and not depth:
            raise InputError(f"pixels_key must be None where the observation is one array, not {key!r}")
        if there is None:
            raise InputError(f"pixels_key must end with {path[depth - 1]!r}, as {where} is one array, not be {key!r}")
        if step not in there:
            raise InputError(f"pixels_key must be one of the {where}'s {_listed(there)}, not {step!r}")
        spec = spec[step]
    below = _entries(spec)
    if below is not None and not path:
        raise InputError(f"pixels_key must be one of the observation's {_listed(below)}, not {key!r}")
    if below is not None:
        longer = (*path, below[0] if below else "name")
        raise InputError(
            f"pixels_key must be a path to images, such as {longer!r}, as {_name(path)} holds {_listed(below)}, "
            f"not {key!r}"
        )
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


def get_part(whole: Any, key: PixelsKey, name: str = "observation") -> Any:
    """Return what an observation holds at a key.

    Raises
    ------
    InputError
        There is nothing.
    """
    part, path = whole, _path(key)
    for depth, step in enumerate(path):
        there = _entries(part)
        if there is None or step not in there:
            only = "an array" if there is None else f"only {_listed(there)}"
            raise InputError(f"{_name(path[:depth], name)} must have {step!r}, as its space or spec says, not {only}")
        part = part[step]
    return part


def put_part(whole: Any, key: PixelsKey, part: Any) -> Any:
    """Return a copy of an observation, spec or space with what it holds at a key replaced."""
    path = _path(key)
    if not path:
        return part
    step, rest = path[0], path[1:]
    part = put_part(whole[step], rest, part)
    if isinstance(whole, Mapping):
        # An OrderedDict, because a gymnasium Dict sorts the names of any other mapping
        return type(whole)(OrderedDict({**whole, step: part}))  # type: ignore[call-arg]  # as every mapping there is
    entries = [part if index == step else each for index, each in enumerate(whole)]
    return type(whole)(*entries) if hasattr(whole, "_fields") else type(whole)(entries)


def _path(key: PixelsKey) -> tuple[str | int, ...]:
    if key is None:
        return ()
    if isinstance(key, (str, int)):
        return (key,)
    if not isinstance(key, Sequence):
        raise InputTypeError(f"pixels_key must be a name, an index, a sequence of these or None, not {describe(key)}")
    return tuple(key)


def _entries(value: Any) -> list[str | int] | None:
    """Return the names or indices of what a mapping or tuple holds, also of specs or spaces; None for anything else."""
    if isinstance(value, Mapping):
        return list(value)  # a list: `in` on a gymnasium space tests for samples, not for names
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(range(len(value)))
    return None


def _listed(entries: Sequence[str | int]) -> str:
    return ", ".join(map(repr, entries)) or "nothing"


def _name(key: PixelsKey, whole: str = "observation") -> str:
    return whole + "".join(f"[{step!r}]" for step in _path(key))
