"""What `benchmarks.kernels` times: each step of a frame outside the networks, and what it cannot avoid.

Bytes are those of the arguments, read once, and of the results, written once: what a kernel keeps to itself it could do
without. Operations are additions, multiplications, comparisons and selections, by the formulas beside each step. T is
how many entries a resize takes along an axis, S the frame's side, n = 4G the logits'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from benchmarks.kernels.contenders import Eager, Ours, Results, official_code
from benchmarks.kernels.inputs import Given, Sizes
from samg_fast.bundle import NetworkSpec
from samg_fast.ops.geometry import chain_taps, pillow_taps

if TYPE_CHECKING:
    from benchmarks.kernels.places import Place

__all__ = ["Step", "opened"]


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a frame, two ways.

    Parameters
    ----------
    op : str
        Its name in the table.
    read : int
        Bytes of its arguments.
    operations : int
    ours, eager : callable
        Both return what they made; the eager one may leave out what the official code does not make.
    """

    op: str
    read: int
    operations: int
    ours: Callable[[], Results]
    eager: Callable[[], Results]


@contextmanager
def opened(sizes: Sizes, place: Place) -> Iterator[list[Step]]:
    """Prepare the steps of a frame on a device; the eager ones run as long as the context lasts."""
    given = Given.of(sizes)
    with official_code(sizes):
        yield _steps(sizes, given, Ours(sizes, given, place), Eager(sizes, given, place.name))


def _steps(sizes: Sizes, given: Given, ours: Ours, eager: Eager) -> list[Step]:
    """Put the steps side by side, and count what they cannot avoid."""
    size, count = sizes.size, sizes.features
    maps = (given.sam_features, given.dino_features, given.sam_map, given.dino_map)
    one_mask = given.low_res[:, :1]  # of the best mask's logits alone something has to be read
    pixels = size**2
    resized = _resizing((4 * sizes.sam.grid, sizes.prompt_side), size) + pixels  # and compared with 0

    def step(op: str, what: str, read: Sequence[NDArray[Any]], operations: int) -> Step:
        return Step(op, sum(each.nbytes for each in read), operations, getattr(ours, what), getattr(eager, what))

    preprocess = step("preprocess", "preprocess", [given.frame], sum(_preparing(size, each) for each in sizes.images))
    similarity = step("similarity_map", "similarity", maps, _similarity(sizes))
    both = step("similarity_points", "similarity_points", maps, _similarity(sizes) + (count + 1) * pixels)
    # A comparison for each value that is looked at
    points = step("topk_points", "points", [given.similarity], (count + 1) * pixels)
    weighted = step(
        "resize_logits weighted", "weighted", [given.low_res, given.weights], 2 * given.low_res.size + resized
    )
    chosen = step("resize_logits best", "best", [one_mask, given.iou], resized)
    # A multiplication for each coordinate of the points and the box
    asked = (given.points, given.order, given.labels, given.box)
    prompt = step("prompt_assembly", "prompt", asked, given.points.size + given.box.size)
    x0, y0, x1, y1 = given.box[0].tolist()
    in_box = step("topk_points in a box", "point_in_box", [given.similarity[0, y0:y1, x0:x1]], (x1 - x0) * (y1 - y0))
    masked = step("apply_mask", "apply_mask", [given.frame, given.mask], given.frame.size)  # a selection for each value
    frame = _together("frame", [preprocess, both, *[prompt] * 3, weighted, in_box, chosen, chosen, masked])
    return [preprocess, similarity, both, points, weighted, chosen, prompt, masked, frame]


def _together(op: str, parts: Sequence[Step]) -> Step:
    """Make one step of several, each on its own inputs."""

    def all_of(what: str) -> Callable[[], Results]:
        calls = [getattr(part, what) for part in parts]
        return lambda: {f"{index} {name}": each for index, call in enumerate(calls) for name, each in call().items()}

    read, operations = sum(part.read for part in parts), sum(part.operations for part in parts)
    return Step(op, read, operations, all_of("ours"), all_of("eager"))


def _preparing(size: int, spec: NetworkSpec) -> int:
    """Count the operations of an image: 2 T of each value of each pass, columns first, and 2 to normalise it."""
    taps = pillow_taps(size, spec.side) if spec.resize == "uint8" else chain_taps((size,), size, spec.side)
    return 3 * (2 * len(taps.source) * (size * spec.side + spec.side**2) + 2 * spec.side**2)


def _similarity(sizes: Sizes) -> int:
    """Count the operations of similarity maps.

    2 C (K + 1) of each cell for its dot products and its squared norm; where cells are lifted, 2 C more for each of its
    products with four neighbours, of which the squared norms of lifted cells are made; 4 of each of K G^2 cosines, for
    two norms, a sum and a half; and the way to the frame. Lifting the products, some 2 in 100, is left out.
    """
    sam, dino, count = sizes.sam, sizes.dino, sizes.features
    neighbours = 0 if sam.grid == dino.grid else 4
    products = sam.channels * (count + 1) * sam.grid**2 + dino.channels * (count + 1 + neighbours) * dino.grid**2
    return 2 * products + count * (4 * sam.grid**2 + _resizing((sam.grid, 4 * sam.grid, sizes.prompt_side), sizes.size))


def _resizing(sides: tuple[int, ...], size: int) -> int:
    """Count the operations of a map's way to the frame: 2 T of each value of each pass, rows first."""
    return 2 * len(chain_taps(sides, sides[-1], size).source) * (size * sides[0] + size**2)
