"""The operators of ONNX, opsets 17 to 20, as functions of PyTorch.

A function's parameters are the operator's inputs, in their order, and its keywords the attributes, under ONNX's names
and with ONNX's defaults. What a `Literal` does not list, and what is no parameter, is not supported. Inputs that are
no tensors here (`Ints` and the like: axes, shapes, borders) must be constants of the graph, or sizes that it computes.

The definitions are ONNX's own: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from samg_fast.backends.onnx_layout import LAYOUT, Ints

__all__ = ["MIXED", "NATIVE", "OPERATORS", "TYPES"]

Floats = tuple[float, ...]

TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""What ONNX's numbers of data types stand for."""

NATIVE: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
"""Operators without attributes that PyTorch has under another name."""


def _cast(x: Tensor, *, to: int, saturate: Literal[1] = 1) -> Tensor:  # noqa: ARG001 (of float8 alone)
    if to not in TYPES:
        raise ValueError(f"data type {to} is not supported")
    return x.to(TYPES[to])


def _clip(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:  # noqa: A002 (ONNX's names)
    if min is None and max is None:
        return x
    return torch.clamp(x, min, max)


def _conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: Literal["NOTSET"] = "NOTSET",  # noqa: ARG001 (pads say it)
    dilations: Ints = (1, 1),
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints = (0, 0, 0, 0),
    strides: Ints = (1, 1),
) -> Tensor:
    _check_kernel(x, w, kernel_shape)
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(x, w, b, strides, (top, left), dilations, group)


def _conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: Literal["NOTSET"] = "NOTSET",  # noqa: ARG001 (pads say it)
    dilations: Ints = (1, 1),
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints = (0, 0),
    pads: Ints = (0, 0, 0, 0),
    strides: Ints = (1, 1),
) -> Tensor:
    _check_kernel(x, w, kernel_shape)
    if pads[:2] != pads[2:]:
        raise ValueError(f"pads is {pads}, expected as much at the end as at the beginning")
    return F.conv_transpose2d(x, w, b, strides, pads[:2], output_padding, group, dilations)


def _check_kernel(x: Tensor, w: Tensor, kernel_shape: Ints | None) -> None:
    if x.dim() != 4:
        raise ValueError(f"its input has {x.dim()} axes, expected 4")
    if kernel_shape is not None and kernel_shape != tuple(w.shape[2:]):
        raise ValueError(f"kernel_shape is {kernel_shape}, but its weights are of shape {tuple(w.shape)}")


def _dequantize_linear(x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1) -> Tensor:
    whole = x.to(torch.int32)
    if zero_point is not None:
        whole = whole - _along(zero_point, x, axis).to(torch.int32)
    return whole.to(scale.dtype) * _along(scale, x, axis)


def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _gelu(x: Tensor, *, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 (ONNX's name)
    transB: int = 0,  # noqa: N803
) -> Tensor:
    a, b = a.t() if transA else a, b.t() if transB else b
    if c is None:
        return alpha * (a @ b)
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def _layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: Literal[1] = 1,  # noqa: ARG001 (PyTorch also takes mean and deviation of halves in float32)
) -> Tensor:
    shape = x.shape[axis:]
    return F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)


def _max(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, inputs)


def _min(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.minimum, inputs)


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def _quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    saturate: Literal[1] = 1,  # noqa: ARG001 (of float8 alone)
) -> Tensor:
    kind = torch.uint8 if zero_point is None else zero_point.dtype
    if x.dtype != torch.float32 or kind not in (torch.uint8, torch.int8):
        raise ValueError(f"it makes {kind} of {x.dtype}, expected torch.uint8 or torch.int8 of torch.float32")
    whole = torch.round(x / _along(scale, x, axis))
    if zero_point is not None:
        whole = whole + _along(zero_point, x, axis)
    limits = torch.iinfo(kind)
    return whole.clamp(limits.min, limits.max).to(kind)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Shape the values of the entries of an axis so that they meet them; one value meets all."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _reduce_mean(x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    if not axes and noop_with_empty_axes:
        return x
    return torch.mean(x, axes or None, bool(keepdims))


def _reduce_sum(x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    if not axes and noop_with_empty_axes:
        return x
    return torch.sum(x, axes or None, bool(keepdims), dtype=x.dtype)


def _resize(
    x: Tensor,
    roi: Floats | None = None,  # noqa: ARG001 (of the transformation tf_crop_and_resize alone)
    scales: Floats | None = None,
    sizes: Ints | None = None,
    *,
    antialias: Literal[0] = 0,  # noqa: ARG001
    coordinate_transformation_mode: Literal["half_pixel"] = "half_pixel",  # noqa: ARG001
    cubic_coeff_a: float = -0.75,
    exclude_outside: Literal[0] = 0,  # noqa: ARG001
    extrapolation_value: float = 0.0,  # noqa: ARG001 (of tf_crop_and_resize alone)
    keep_aspect_ratio_policy: Literal["stretch"] = "stretch",  # noqa: ARG001
    mode: Literal["linear", "cubic"],
    nearest_mode: str = "round_prefer_floor",  # noqa: ARG001 (of the mode nearest alone)
) -> Tensor:
    if x.dim() != 4 or (scales and scales[:2] != (1, 1)) or (sizes and sizes[:2] != tuple(x.shape[:2])):
        raise ValueError("it resizes other axes than the last two of four")
    if cubic_coeff_a != -0.75:
        raise ValueError(f"cubic_coeff_a is {cubic_coeff_a}, expected -0.75")
    size, factors = (sizes[2:], None) if sizes else (None, scales[2:] if scales else None)
    method = "bilinear" if mode == "linear" else "bicubic"
    return F.interpolate(x, size, factors, method, align_corners=False)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


OPERATORS: dict[str, Callable[..., Any]] = {
    **LAYOUT,
    "Cast": _cast,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize_linear,
    "Div": _div,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "Max": _max,
    "Min": _min,
    "Pow": _pow,
    "QuantizeLinear": _quantize_linear,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Resize": _resize,
    "Softmax": _softmax,
}
"""The others."""

MIXED = frozenset({_dequantize_linear, _pow, _quantize_linear})
"""Those whose inputs may be of several data types."""
