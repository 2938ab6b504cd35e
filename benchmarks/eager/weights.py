"""Reproducible weights by official key name, so that official models can be compared without a checkpoint.

They are random: masks mean nothing as segmentation, and everything as arithmetic. The files in
``tests/golden/official`` were made with the same weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from samg_fast.files import replacing

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["fill", "filled", "write_checkpoint"]

_Model = TypeVar("_Model", bound=torch.nn.Module)


def fill(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draw a weight for every key of a state dict, the same one on every machine.

    Each comes from NumPy's frozen legacy generator, seeded with the CRC-32 of its key in the official checkpoint, and
    is scaled by what the key's name says it is.

    Parameters
    ----------
    state_dict : mapping of str to torch.Tensor
        Official keys; the values' shapes count.

    Returns
    -------
    dict of str to torch.Tensor
        Same keys and shapes; float32. Integer buffers (``num_batches_tracked``) are copies of what they were.
    """
    return {
        key: _draw(key, tuple(value.shape)) if value.is_floating_point() else value.clone()
        for key, value in state_dict.items()
    }


def filled(model: _Model) -> _Model:
    """Put reproducible weights into a model with official keys, in place, and set it to evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        `model`.
    """
    model.load_state_dict(fill(model.state_dict()), strict=True)
    return model.eval()


def write_checkpoint(model: torch.nn.Module, path: str | PathLike[str], nested: bool = False) -> None:
    """Write a model's weights as official checkpoints are written, whole or not at all.

    Parameters
    ----------
    model : torch.nn.Module
        With official keys.
    path : path
        Replaced if it is there.
    nested : bool
        Whether the file holds ``{"state_dict": weights}`` (EfficientViT-SAM) instead of the weights alone (DINOv2).

    Raises
    ------
    FileError
        It cannot be written there.
    """
    weights = model.state_dict()
    # An open file, because torch writes a path's name into the file: the same weights shall give the same bytes
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        torch.save({"state_dict": weights} if nested else weights, file)


def _draw(key: str, shape: tuple[int, ...]) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    normal = np.asarray(random.standard_normal(shape))
    return torch.from_numpy(np.asarray(_scaled(key, normal), np.float32)).reshape(shape)


def _scaled(key: str, normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale standard normal numbers so that activations stay of one size through the whole model."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        scaled = 1 + 0.1 * np.abs(normal)
    elif leaf in ("running_mean", "bias"):
        scaled = 0.1 * normal
    elif leaf == "gamma" or normal.ndim <= 1:  # layer scales and norms
        scaled = 1 + 0.1 * normal
    elif "positional_encoding_gaussian_matrix" in key:
        scaled = normal
    elif "embed" in key or "token" in key:
        scaled = 0.5 * normal
    else:
        scaled = normal / np.sqrt(np.prod(normal.shape[1:]))
    return np.asarray(scaled)
