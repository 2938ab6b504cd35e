"""Which layers must stay in float32: found by building a graph with fewer and fewer of them, and comparing each."""

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
"""Where more layers than these would have to stay in float32, no layer is to blame, and the search ends."""


def failing_layers(
    path: str | os.PathLike[str],
    precision: str,
    holds: Callable[[onnx.ModelProto], bool],
    feeds: Sequence[dict[str, NDArray[np.float32]]],
    say: Say = lambda _: None,
) -> tuple[str, ...]:
    """Find layers of a graph that must stay in float32 for the rest to work in half precision.

    Layers are the graph's products, in the order in which it computes them. Those of the end are put into half
    precision until that fails: the one that makes it fail is kept in float32 from then on, and the search goes on
    before it. That takes about log2 of the number of layers tries for each that is found.

    Parameters
    ----------
    path : str or os.PathLike
        The float32 graph.
    precision : {"fp16", "bf16"}
        Which half.
    holds : callable
        Builds a graph, runs it and says whether it agrees with the float32 graph.
    feeds : sequence of dict
        Inputs of some runs, by name: `to_half` is told the ranges of these, as in an export.
    say : callable
        Told what each try came to, and how many there were.

    Returns
    -------
    tuple of str
        Names of the ONNX nodes, in the graph's order; that of its output for a node without a name. None if the whole
        graph holds in half precision. With these in float32 it was seen to hold. None of them can be left out, if
        keeping more layers in float32 never does harm.

    Raises
    ------
    InputError
        The precision is no half precision.
    BackendError
        The graph does not hold in float32 either, or no few layers are to blame.
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
    end = len(order)  # with those found and all before here in float32 it holds
    while end and not holds_with(found):
        if len(found) == MAX_LAYERS:
            raise BackendError(
                f"{name} fails at {precision} even with {', '.join(layers[each] for each in found)} in fp32"
            )
        fails = 0  # with those before here it does not
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
