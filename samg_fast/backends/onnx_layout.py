"""The operators of ONNX that put values elsewhere and compute none; see `samg_fast.backends.onnx_operators`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LAYOUT", "Ints"]

Ints = tuple[int, ...]


def _concat(*inputs: Any, axis: int) -> Any:
    if isinstance(inputs[0], tuple):  # sizes
        return tuple(size for each in inputs for size in each)
    return torch.cat(inputs, axis)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: Literal["DCR", "CRD"] = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    batch, channels, height, width = x.shape
    x = x.reshape(batch, blocksize, blocksize, channels // blocksize**2, height, width)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * blocksize, width * blocksize)


def _expand(x: Tensor, shape: Ints) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), shape))


def _gather(x: Tensor, indices: int | Ints, *, axis: int = 0) -> Tensor:
    if isinstance(indices, int):
        return x.select(axis, indices)
    if not all(isinstance(index, int) for index in indices):
        raise ValueError("its indices have two axes or more, expected one or none")
    return torch.stack([x.select(axis, index) for index in indices], axis)


def _identity(x: Tensor) -> Tensor:
    return x


def _pad(
    x: Tensor,
    pads: Ints,
    value: float | None = None,
    axes: Ints | None = None,
    *,
    mode: Literal["constant"] = "constant",  # noqa: ARG001
) -> Tensor:
    borders = [0] * (2 * x.dim())  # of the last axis first, as PyTorch wants them
    for index, axis in enumerate(range(x.dim()) if axes is None else axes):
        after = 2 * (x.dim() - axis % x.dim()) - 1
        borders[after - 1], borders[after] = pads[index], pads[len(pads) // 2 + index]
    return F.pad(x, borders, value=value or 0)


def _reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    if not allowzero:
        shape = tuple(x.shape[axis] if size == 0 else size for axis, size in enumerate(shape))
    return x.reshape(shape)


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Ints:
    return tuple(x.shape)[start:end]


def _slice(x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Tensor:
    index, backward = [slice(None)] * x.dim(), []
    for entry, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = 1 if steps is None else steps[entry]
        taken = range(x.shape[axis])[starts[entry] : ends[entry] : step]
        if step < 0:  # PyTorch slices forwards alone
            backward.append(axis)
            taken = taken[::-1]
        index[axis] = slice(taken.start, taken.stop, taken.step) if taken else slice(0, 0)
    return x[tuple(index)].flip(backward)


def _split(
    x: Tensor,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,  # noqa: ARG001 (as many as there are)
    outputs: int,
) -> tuple[Tensor, ...]:
    if split is None:
        part = math.ceil(x.shape[axis] / outputs)
        split = (*(part for _ in range(outputs - 1)), x.shape[axis] - part * (outputs - 1))
    return torch.split(x, list(split), axis)


def _squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    if axes is None:
        return torch.squeeze(x)
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"its input of shape {tuple(x.shape)} is more than 1 long along one of the axes {axes}")
    return torch.squeeze(x, axes)


def _transpose(x: Tensor, *, perm: Ints | None = None) -> Tensor:
    return x.permute(tuple(reversed(range(x.dim()))) if perm is None else perm)


def _unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


LAYOUT: dict[str, Callable[..., Any]] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By their names in ONNX."""
