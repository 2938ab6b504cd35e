"""Finds the layers of a graph that must stay in float32, by bisection."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from samg_fast.errors import BackendError, InputError

from .convert import float_graph
from .emulate import measure_ranges
from .precision import PRODUCTS, to_half, watched
from .variants import Say

__all__ = ["MAX_LAYERS", "failing_layers"]

MAX_LAYERS = 8
"""Maximum number of layers to keep in float32; the search gives up if more would be needed."""


def failing_layers(
    path: str | os.PathLike[str],
    precision: str,
    holds: Callable[[onnx.ModelProto], bool],
    feeds: Sequence[dict[str, NDArray[np.float32]]],
    say: Say = lambda _: None,
) -> tuple[str, ...]:
    """Find layers of a graph that must stay in float32 for the rest to work in half precision.

    Layers are the graph's products, in the order of computation. Starting from the end, more and more layers are put
    into half precision until the graph fails. The layer that made it fail is kept in float32 from then on, and the
    search continues before it. Each layer found takes about log2(number of layers) tries.

    Parameters
    ----------
    path : str or os.PathLike
        The float32 graph.
    precision : {"fp16", "bf16"}
        The half precision.
    holds : callable
        Builds and runs a graph, and returns whether it agrees with the float32 graph.
    feeds : sequence of dict
        Inputs of some runs, by name; `to_half` gets the ranges measured on them, as in an export.
    say : callable
        Called with a line about the result of each try, and one about their number.

    Returns
    -------
    tuple of str
        Names of the ONNX nodes in the graph's order, or the output's name for a node without one; empty if the whole
        graph holds in half precision. The graph was run with exactly these in float32, and held. All of them are
        needed, provided that keeping more layers in float32 never makes a graph worse.

    Raises
    ------
    InputError
        `precision` is not a half precision.
    BackendError
        The graph fails in float32 too, or more than `MAX_LAYERS` layers would have to stay in float32.
    """
    if precision not in ("fp16", "bf16"):
        raise InputError(f"precision is {precision!r}, expected fp16 or bf16: no other is bisected")
    name = Path(path).name
    model = float_graph(Path(path))
    ranges = measure_ranges(model, watched(model.graph), list(feeds))
    layers = {node.output[0]: node.name or node.output[0] for node in model.graph.node if node.op_type in PRODUCTS}
    order = list(layers)
    tries = 0

    def holds_with(kept: Sequence[str]) -> bool:
        nonlocal tries
        tries += 1
        held = holds(to_half(model, precision, ranges, keep=kept))
        say(f"{name}: try {tries}, {len(kept)} of {len(order)} layers in fp32: {'holds' if held else 'fails'}")
        return held

    if not holds_with(order):
        raise BackendError(f"{name} fails in fp32 too: it is not a matter of {precision}")
    found: list[str] = []
    end = len(order)  # with `found` and all layers before this one in float32, the graph holds
    while end and not holds_with(found):
        if len(found) == MAX_LAYERS:
            raise BackendError(
                f"{name} fails at {precision} even with {', '.join(layers[each] for each in found)} in fp32"
            )
        fails = 0  # with `found` and all layers before this one in float32, it fails
        while end - fails > 1:
            middle = (fails + end) // 2
            if holds_with([*order[:middle], *found]):
                end = middle
            else:
                fails = middle
        end -= 1
        found.insert(0, order[end])
    say(f"{name}: {len(found)} of {len(order)} layers must stay in fp32, found in {tries} tries")
    return tuple(layers[each] for each in found)
