"""Reference images: what `Segmenter.identify` is given with each, checked and brought to the encoder's grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.bundle import NetworkSpec
from samg_fast.checks import Frame, Mask, check_frame, check_mask, check_points, describe
from samg_fast.errors import InputError, InputTypeError

__all__ = ["ReferenceImage", "are_several", "check_reference", "check_references", "numbered", "reached"]

_Array = TypeVar("_Array")


class ReferenceImage(NamedTuple):
    """What one reference image shows of a target.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    cells : (1 + M, G, G) bool array
        Of the target, then of each part that is a mask; none is set where the part is hidden.
    points : (K, 2) float64 array
        (x, y), in pixels, of each part that is a point; NaN where it is hidden.
    """

    image: Frame
    cells: Mask
    points: NDArray[np.float64]


def check_reference(
    image: Any, mask: Any, points: Any, parts: Any, spec: NetworkSpec, index: str = ""
) -> ReferenceImage:
    """Check one image and what it shows, on an encoder's grid; `index` says in messages which of several it is."""
    image = check_frame(f"image{index}", image)
    cells = [_cells(f"mask{index}", mask, image, spec)]
    cells += [
        _cells(name, part, image, spec, may_hide=bool(index)) for name, part in numbered(f"parts{index}", parts).items()
    ]
    at = (_shown_points if index else check_points)(f"points{index}", points, image.shape)
    return ReferenceImage(image, np.stack(cells), at)


def check_references(images: list[Any], mask: Any, points: Any, parts: Any, spec: NetworkSpec) -> list[ReferenceImage]:
    """Check several images, and give all of them the same parts."""
    count = len(images)
    if count == 0:
        raise InputError("image holds no picture: at least one is expected")
    given = zip(
        images,
        _one_each("mask", mask, count, optional=False),
        _one_each("points", points, count, optional=True),
        _one_each("parts", parts, count, optional=True),
        strict=True,
    )
    references = [
        check_reference(image, of_target, at, of_parts, spec, f"[{index}]")
        for index, (image, of_target, at, of_parts) in enumerate(given)
    ]
    masks = _common_count("parts", [len(each.cells) - 1 for each in references])
    dots = _common_count("points", [len(each.points) for each in references])
    references = [
        ReferenceImage(each.image, _padded(each.cells, 1 + masks, False), _padded(each.points, dots, np.nan))
        for each in references
    ]
    _check_shown("parts", np.stack([each.cells[1:].any(axis=(1, 2)) for each in references]))
    _check_shown("points", np.stack([~np.isnan(each.points[:, 0]) for each in references]))
    return references


def _cells(name: str, mask: Any, image: Frame, spec: NetworkSpec, *, may_hide: bool = False) -> Mask:
    """Return which cells a mask reaches; none for a mask that is None, which `may_hide` allows."""
    if mask is None and may_hide:
        return np.zeros((spec.grid, spec.grid), np.bool_)
    cells = ops.mask_cells(check_mask(name, mask, image.shape), side=spec.side, grid=spec.grid)
    return reached(name, cells, f"is too small for the encoder's {spec.grid} x {spec.grid} grid")


def are_several(image: object) -> bool:
    """Whether `identify` was given several images: a sequence, or an array with one more dimension."""
    sequence = isinstance(image, Sequence) and not isinstance(image, (str, bytes))
    return sequence or getattr(image, "ndim", None) == 4


def _one_each(name: str, given: Any, count: int, *, optional: bool) -> list[Any]:
    """Split an argument into each image's entry; () stands for one that is left out."""
    either = "be empty or " if optional else ""
    if not hasattr(given, "__len__") or isinstance(given, (str, bytes)):
        raise InputTypeError(f"{name} must {either}have one entry for each picture, not be {describe(given)}")
    if optional and len(given) == 0:
        return [()] * count
    if len(given) != count:
        raise InputError(f"{name} must {either}have one entry for each of the {count} pictures, not {len(given)}")
    return [() if optional and each is None else each for each in given]


def _shown_points(name: str, given: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Check the points of one of several images; those that are None are hidden and become NaN."""
    if not isinstance(given, (list, tuple)) or all(point is not None for point in given):
        return check_points(name, given, shape)
    shown = np.array([point is not None for point in given])
    at = np.full((len(given), 2), np.nan)
    points = check_points(name, [point for point in given if point is not None], shape)
    if len(points) != shown.sum():
        raise InputError(f"{name} has a point without numbers: expected (x, y), or None where it is hidden")
    at[shown] = points
    return at


def _common_count(name: str, counts: list[int]) -> int:
    """Return how many entries each image has that has any: all of these must have as many."""
    some = sorted({count for count in counts if count})
    if len(some) > 1:
        found = ", ".join(str(count) for count in counts)
        raise InputError(f"{name} must have as many entries for each picture, None for what it hides, not {found}")
    return some[0] if some else 0


def _padded(array: NDArray[Any], count: int, value: Any) -> NDArray[Any]:
    """Lengthen an array along its first axis with a value."""
    return np.concatenate((array, np.full((count - len(array), *array.shape[1:]), value, array.dtype)))


def _check_shown(name: str, shown: Mask) -> None:
    """Check that at least one image shows each part; `shown` has a row for each image, a column for each part."""
    for number, one in enumerate(shown.T):
        if not one.any():
            raise InputError(f"{name} has entry {number} hidden in every picture: at least one must show it")


def reached(name: str, cells: Mask, why: str) -> Mask:
    """Return the cells of a mask; if there are none, raise an error that says why."""
    if not cells.any():
        raise InputError(f"{name} reaches no grid cell: it {why}")
    return cells


def numbered(name: str, arrays: Sequence[_Array]) -> dict[str, _Array]:
    """Return the entries of a sequence by the names that messages call them."""
    if not isinstance(arrays, Iterable):
        raise InputTypeError(f"{name} must be a sequence of arrays, not {describe(arrays)}")
    return {f"{name}[{index}]": array for index, array in enumerate(arrays)}
