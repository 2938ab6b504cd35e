"""The operations of a SAM-G frame outside the networks, checked and fast.

Each has the name and meaning of its definition in `samg_fast.ops.reference`; results agree to float32 rounding. Those
of every frame run as kernels of `engine/`, on the device that `device` names and on its arrays; if none is named, on
`samg_fast.devices.cpu.CPU`, which takes NumPy's. What runs once per task is passed to the reference after the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from samg_fast.bundle import NetworkSpec
from samg_fast.checks import Box, Floats, Frame, Mask, check_floats, check_frame, check_mask, check_whole, describe
from samg_fast.devices.base import Array, Device
from samg_fast.devices.cpu import CPU
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import operands, reference
from samg_fast.ops.geometry import Letterbox, Taps, cell_matrix, chain_taps, pillow_taps
from samg_fast.ops.reference import Coordinates, ResizedLogits

__all__ = [
    "MAX_FEATURES",
    "MAX_POINTS",
    "MAX_VALUES",
    "apply_mask",
    "mask_cells",
    "mask_feature",
    "masked_picture_cells",
    "point_feature",
    "preprocess",
    "prompt_assembly",
    "resize_logits",
    "similarity_map",
    "topk_points",
]

MAX_POINTS = 64
"""The most points that `topk_points` finds."""

MAX_FEATURES = 64
"""The most features that `similarity_map` takes at once."""

MAX_VALUES = 2048 * 2048
"""The most values of a map that `topk_points` searches."""


def preprocess(
    frames: Frame,
    specs: Sequence[NetworkSpec],
    *,
    out: Sequence[Array] | None = None,
    dtype: DTypeLike = np.float32,
    device: Device = CPU,
) -> list[Floats]:
    """Turn frames into the input of one network or two, in one pass: letterbox, normalise, zero-pad right and bottom.

    Parameters
    ----------
    frames : (B, H, W, 3) uint8 array
        RGB.
    specs : sequence of one or two NetworkSpec
        Their `side`, `mean`, `std` and `resize`; see `samg_fast.ops.reference.preprocess`.
    out : sequence of (B, 3, side, side) float32 or float16 arrays, optional
        Where to write, one for each network; made if not given.
    dtype : dtype
        float32 or float16, of what is made.
    device : Device
        Whose arrays these are.

    Returns
    -------
    list of (B, 3, side, side) arrays
        `out`. The resize of ``"uint8"`` is Pillow's to the bit; normalised values agree with the reference to float32
        rounding, or are rounded to float16 once.

    Raises
    ------
    InputTypeError, InputError
        `frames` are not uint8 RGB pictures, or `out` are not such arrays.
    """
    frames = operands.read(device, "frames", frames, (None, None, None, 3), operands.UINT8)
    if 0 in frames.shape:
        raise InputError(f"frames must have at least one pixel, not shape {tuple(frames.shape)}")
    if not 1 <= len(specs) <= 2:
        raise InputError(f"specs must be one or two, not {len(specs)}")
    batch, height, width, _ = frames.shape
    operands.check_size("frames", height, width)
    shapes = [(batch, 3, spec.side, spec.side) for spec in specs]
    if out is None:
        if dtype not in (np.float32, np.float16, "float32", "float16"):
            raise InputError(f"dtype must be float32 or float16, not {dtype}")
        out = [device.empty(shape, dtype) for shape in shapes]
    elif not isinstance(out, (list, tuple)) or len(out) != len(specs):
        raise InputError(f"out must be a list of {len(specs)} arrays, one for each network, not {describe(out)}")
    else:
        names = ["out"] if len(out) == 1 else [f"out[{index}]" for index in range(len(out))]
        out = [operands.written(device, *each, operands.REAL) for each in zip(names, out, shapes, strict=True)]
    inputs = []
    for spec, array in zip(specs, out, strict=True):
        fixed = spec.resize == "uint8"
        rows, columns = _picture_taps(fixed, spec.side, height, width)
        levels = device.constant(_levels(spec.mean, spec.std))
        inputs.append((fixed, _taps(device, rows), _taps(device, columns), levels, array))
    device.run("preprocess", frames, inputs)
    return list(out)


def similarity_map(
    sam_features: Floats,
    dino_features: Floats,
    sam_map: Floats,
    dino_map: Floats,
    *,
    prompt_side: int,
    height: int,
    width: int,
    out: Array | None = None,
    device: Device = CPU,
) -> Floats:
    """Cosine similarity of K features with every cell of both maps, averaged, at the frame's size.

    Parameters
    ----------
    sam_features : (K, C1) or (B, K, C1) float32 array
    dino_features : (K, C2) or (B, K, C2) float32 array
        L2-normalised point features, up to 64: the same for all frames, or those of each.
    sam_map : (C1, G, G) or (B, C1, G, G) float32 or float16 array
    dino_map : (C2, g, g) or (B, C2, g, g) float32 or float16 array
        Raw maps, of one frame or of B.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        The frame, in pixels.
    out : (K, height, width) or (B, K, height, width) float32 array, optional
        Where to write; made if not given.
    device : Device
        Whose arrays these are.

    Returns
    -------
    (K, height, width) or (B, K, height, width) float32 array
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has another dtype or shape, or there are more features.
    """
    batched = operands.axes(sam_map) == 4
    lead: tuple[int | None, ...] = (None,) if batched else ()
    sam_map = operands.square(device, "sam_map", sam_map, (*lead, None))
    lead = tuple(sam_map.shape[:-3])
    dino_map = operands.square(device, "dino_map", dino_map, (*lead, None))
    each = lead if operands.axes(sam_features) == 3 else ()
    sam_features = operands.read(device, "sam_features", sam_features, (*each, None, sam_map.shape[-3]))
    count = sam_features.shape[-2]
    dino_features = operands.read(device, "dino_features", dino_features, (*each, count, dino_map.shape[-3]))
    if not 1 <= count <= MAX_FEATURES:
        raise InputError(f"sam_features must be from 1 to {MAX_FEATURES} features, not {count}")
    operands.check_frame_size(prompt_side, height, width)
    shape = (*lead, count, height, width)
    result: Floats = operands.output(device, out, shape)
    grid, dino_grid = sam_map.shape[-1], dino_map.shape[-1]
    rows, columns = _frame_taps((grid, 4 * grid, prompt_side), height, width)
    device.run(
        "similarity_map",
        *(operands.batched(device, features, 3) for features in (sam_features, dino_features)),
        *(operands.batched(device, maps, 4) for maps in (sam_map, dino_map)),
        _taps(device, chain_taps((dino_grid,), dino_grid, grid)),
        _taps(device, rows),
        _taps(device, columns),
        operands.batched(device, result, 4),
    )
    return result


def topk_points(
    values: Floats,
    k: int,
    largest: bool,
    box: Box | NDArray[np.int32] | None = None,
    *,
    out: Array | None = None,
    device: Device = CPU,
) -> NDArray[np.int32]:
    """Find the k largest or smallest values of a map, or of each of several.

    Parameters
    ----------
    values : (H, W) or (B, H, W) float32 array
        Up to 2048 * 2048 values a map. A NaN counts as minus infinity. Only the first axis of three may be strided.
    k : int
        How many, 1 .. min(H * W, 64).
    largest : bool
        The largest, or the smallest.
    box : tuple or (4,) or (B, 4) int32 array, optional
        (x0, y0, x1, y1): only rows y0 .. y1 - 1 and columns x0 .. x1 - 1 count; it may reach beyond the map. By default
        the whole map. Of several maps, one for each, or a tuple for all.
    out : (k, 2) or (B, k, 2) int32 array, optional
        Where to write; made if not given.
    device : Device
        Whose arrays these are.

    Returns
    -------
    (k, 2) or (B, k, 2) int32 array
        `out`: (x, y) points, best first; ties in row-major order; (0, 0) for what a smaller box does not hold.

    Raises
    ------
    InputTypeError, InputError
        `values` are not such maps, `box` is no box, or `k` is not in its range.
    """
    batched = operands.axes(values) == 3
    values = operands.read(device, "values", values, (None,) * (3 if batched else 2), first=int(batched))
    lead, (height, width) = tuple(values.shape[:-2]), values.shape[-2:]
    if 0 in lead:
        raise InputError("values must have at least one map, not 0")
    if not 1 <= height * width <= MAX_VALUES:
        raise InputError(f"values must have from 1 to {MAX_VALUES} values a map, not {height} x {width}")
    check_whole("k", k, 1, min(height * width, MAX_POINTS))
    if not isinstance(largest, (bool, np.bool_)):
        raise InputTypeError(f"largest must be True or False, not {describe(largest)}")
    if isinstance(box, tuple):
        if len(box) != 4 or not all(isinstance(each, (int, np.integer)) for each in box):
            raise InputError(f"box must be four whole numbers (x0, y0, x1, y1), not {box}")
        boxes = device.constant(_boxes(box, *lead))
    elif box is not None:
        boxes = operands.batched(device, operands.read(device, "box", box, (*lead, 4), operands.INT32), 2)
    else:
        boxes = None
    result: NDArray[np.int32] = operands.output(device, out, (*lead, k, 2), operands.INT32)
    device.run(
        "topk_points",
        operands.batched(device, values, 3),
        int(k),
        bool(largest),
        boxes,
        operands.batched(device, result, 3),
    )
    return result


def resize_logits(
    low_res: Floats,
    *,
    weights: Floats | None = None,
    iou: Floats | None = None,
    prompt_side: int,
    height: int,
    width: int,
    out: ResizedLogits | None = None,
    device: Device = CPU,
) -> ResizedLogits:
    """Make one mask of the masks of each decode, and bring it to the frame: P, crop, frame.

    Parameters
    ----------
    low_res : (B, M, 4G, 4G) float32 or float16 array
        Logits of M masks; only the first axis may be strided.
    weights : (B, M) float32 array, optional
        The masks are summed with these weights.
    iou : (B, M) float32 array, optional
        Or the mask with the highest predicted IoU is taken, the first of equal ones. A NaN counts as minus infinity.
        Only the first axis may be strided.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        The frame, in pixels.
    out : ResizedLogits, optional
        Where to write; made if not given. Its `settled` and `logits` may be None: then they are not kept.
    device : Device
        Whose arrays these are.

    Returns
    -------
    ResizedLogits
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has another dtype or shape, or not exactly one of `weights` and `iou` is given.
    """
    low_res = operands.square(device, "low_res", low_res, (None, None), first=1)
    side = low_res.shape[-1]
    if (weights is None) == (iou is None):
        raise InputError("either weights or iou must be given, and not both")
    operands.check_frame_size(prompt_side, height, width)
    batch, masks = low_res.shape[:2]
    if weights is not None:
        weights = operands.read(device, "weights", weights, (batch, masks))
    else:
        iou = operands.read(device, "iou", iou, (batch, masks), first=1)
    rows, columns = _frame_taps((side, prompt_side), height, width)
    made = {
        "settled": ((batch, side, side), operands.FLOAT32),
        "logits": ((batch, height, width), operands.FLOAT32),
        "mask": ((batch, height, width), operands.BOOL),
        "area": ((batch,), operands.INT32),
        "box": ((batch, 4), operands.INT32),
        "chosen": ((batch,), operands.INT32),
    }
    if out is None:
        result = ResizedLogits(**{name: device.empty(shape, dtype[0]) for name, (shape, dtype) in made.items()})
    elif not isinstance(out, ResizedLogits):
        raise InputTypeError(f"out must be a ResizedLogits, not {describe(out)}")
    else:
        given: dict[str, Any] = {
            name: None
            if array is None and name in ("settled", "logits")
            else operands.written(device, f"out.{name}", array, *made[name])
            for name, array in out._asdict().items()
        }
        result = ResizedLogits(**given)
    device.run("resize_logits", low_res, weights, iou, _taps(device, rows), _taps(device, columns), *result)
    return result


def prompt_assembly(
    points: NDArray[np.int32],
    order: NDArray[np.int32],
    labels: NDArray[np.int32],
    boxes: NDArray[np.int32] | None,
    *,
    scale: tuple[float, float],
    slots: int,
    out: tuple[Array, Array] | None = None,
    device: Device = CPU,
) -> tuple[Floats, Floats]:
    """Bring points and boxes to the prompt frame and into the decoder's slots.

    Parameters
    ----------
    points : (B, n, 2) or (n, 2) int32 array
        (x, y) in pixels of the frame: points of each frame, or a list that all of them share.
    order : (B, m) int32 array
        Which of the frame's points, or of the list, comes first, second, ...; -1 leaves the slot empty.
    labels : (B, m) int32 array
        1 for a positive point, 0 for a negative one.
    boxes : (B, 4) int32 array or None
        (x_min, y_min, x_max, y_max) in pixels of the frame.
    scale : tuple of float
        Pixels of the prompt frame per pixel of the frame, along x and y.
    slots : int
        N: at least m + 2 with boxes, m + 1 without.
    out : tuple of (B, N, 2) and (B, N) float32 arrays, optional
        Where to write; made if not given.
    device : Device
        Whose arrays these are.

    Returns
    -------
    point_coords : (B, N, 2) float32 array
        In pixels of the prompt frame, without SAM's +0.5; see `samg_fast.ops.reference.prompt_assembly`.
    point_labels : (B, N) float32 array
        Both are those of `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has another dtype or shape, or there are too few slots.
    """
    shared = operands.axes(points) == 2
    points = operands.read(device, "points", points, (None, 2) if shared else (None, None, 2), operands.INT32)
    batch = None if shared else points.shape[0]
    order = operands.read(device, "order", order, (batch, None), operands.INT32)
    batch = order.shape[0]
    labels = operands.read(device, "labels", labels, tuple(order.shape), operands.INT32)
    if boxes is not None:
        boxes = operands.read(device, "boxes", boxes, (batch, 4), operands.INT32)
    needed = order.shape[1] + (1 if boxes is None else 2)
    check_whole("slots", slots, needed, operands.MAX_CELLS)
    if len(scale) != 2 or not all(isinstance(each, (int, float, np.floating)) and isfinite(each) for each in scale):
        raise InputError(f"scale must be two finite numbers, not {scale}")
    if out is not None and (not isinstance(out, tuple) or len(out) != 2):
        raise InputTypeError(f"out must be two arrays, for coordinates and for labels, not {describe(out)}")
    into, labels_into = (None, None) if out is None else out
    coords: Floats = operands.output(device, into, (batch, slots, 2), name="out[0]")
    slot_labels: Floats = operands.output(device, labels_into, (batch, slots), name="out[1]")
    device.run(
        "prompt_assembly",
        operands.batched(device, points, 3),
        order,
        labels,
        boxes,
        (float(scale[0]), float(scale[1])),
        coords,
        slot_labels,
    )
    return coords, slot_labels


def apply_mask(
    frame: Frame,
    mask: Mask,
    background: Frame | None = None,
    *,
    out: Array | None = None,
    device: Device = CPU,
) -> Frame:
    """Masked observation: the frame where the mask is set, the background elsewhere.

    Parameters
    ----------
    frame : (H, W, 3) or (B, H, W, 3) uint8 array
        RGB.
    mask : (H, W) or (B, H, W) bool array
    background : (3,), (H, W, 3) or (B, H, W, 3) uint8 array, optional
        A colour, a picture for all frames, or one for each; black by default.
    out : array of the frame's shape, uint8, optional
        Where to write; made if not given. It may be `frame` itself.
    device : Device
        Whose arrays these are.

    Returns
    -------
    array of the frame's shape, uint8
        `out`.

    Raises
    ------
    InputTypeError, InputError
        An argument has another dtype or shape.
    """
    batched = operands.axes(frame) == 4
    frame = operands.read(device, "frame", frame, (*(None,) * (3 if batched else 2), 3), operands.UINT8)
    shape = tuple(frame.shape)
    operands.check_size("frame", *shape[-3:-1])
    mask = operands.read(device, "mask", mask, shape[:-1], operands.BOOL)
    if background is None:
        background = device.constant(_black())
    else:
        wanted = (3,) if operands.axes(background) == 1 else shape if operands.axes(background) == 4 else shape[-3:]
        background = operands.read(device, "background", background, wanted, operands.UINT8)
    result: Frame = operands.output(device, out, shape, operands.UINT8)
    arrays = (operands.batched(device, each, 4) for each in (background, result))
    device.run("apply_mask", operands.batched(device, frame, 4), operands.batched(device, mask, 3), *arrays)
    return result


def mask_cells(mask: Mask, *, side: int, grid: int) -> Mask:
    """Say which grid cells a mask reaches: letterboxed to the encoder's side, resized to the grid, above 0.

    Parameters
    ----------
    mask : (H, W) bool array
        At least one pixel is set.
    side, grid : int
        The encoder's input side and grid.

    Returns
    -------
    (grid, grid) bool array
        May be empty: a speck can fall between the samples of a coarse grid.

    Raises
    ------
    InputTypeError, InputError
        `mask` is not such a mask.
    """
    mask = check_mask("mask", mask, None)
    height, width = mask.shape
    box = Letterbox(height, width, side)
    rows, columns = cell_matrix(height, box.new_height, side, grid), cell_matrix(width, box.new_width, side, grid)
    return np.asarray(rows @ mask.astype(np.float32) @ columns.T > 0)


def masked_picture_cells(picture: Frame, spec: NetworkSpec) -> Mask:
    """Say which grid cells a masked picture's target reaches, the official way: red above the mean's.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        Black outside the target.
    spec : NetworkSpec
        The encoder's.

    Returns
    -------
    (grid, grid) bool array
        May be empty.

    Raises
    ------
    InputTypeError, InputError
        `picture` is not a uint8 RGB picture.
    """
    return reference.masked_picture_cells(check_frame("picture", picture), spec)


def mask_feature(features: Floats, cells: Mask) -> Floats:
    """Point feature of a mask: the cells inside it, in one picture or in several, pooled.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of a picture, or those of R pictures.
    cells : (G, G) or (R, G, G) bool array
        At least one is set; a picture that does not show what is meant has none.

    Returns
    -------
    (C,) float32 array

    Raises
    ------
    InputTypeError, InputError
        An argument has another dtype or shape, or no cell is set.
    """
    features = _check_maps(features)
    wanted = (*features.shape[:-3], *features.shape[-2:])
    if not isinstance(cells, np.ndarray) or cells.dtype != np.bool_:
        raise InputTypeError(f"cells must be a bool array of shape {wanted}, not {describe(cells)}")
    if cells.shape != wanted:
        raise InputError(f"cells must have the map's size {wanted}, not {cells.shape}")
    if not cells.any():
        raise InputError("cells is empty: at least one must be set")
    return reference.mask_feature(features, cells)


def point_feature(features: Floats, x: Coordinates, y: Coordinates) -> Floats:
    """Point feature of a human point: bilinear samples of the raw maps of one or more pictures, pooled.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of a picture, or those of R pictures.
    x, y : float or (R,) float array
        In cells, without a half-pixel shift, 0 .. G.

    Returns
    -------
    (C,) float32 array

    Raises
    ------
    InputTypeError, InputError
        `features` is not such a map, there is not one point for each map, or a point is NaN or outside.
    """
    features = _check_maps(features)
    grid, wanted = features.shape[-1], features.shape[:-3]
    if np.shape(x) != wanted or np.shape(y) != wanted or 0 in wanted:
        shapes = f"{np.shape(x)} and {np.shape(y)}"
        raise InputError(f"x and y must have one number for each map, so shape {wanted}, not {shapes}")
    for u, v in zip(np.atleast_1d(x), np.atleast_1d(y), strict=True):
        if not (0 <= u <= grid and 0 <= v <= grid):
            raise InputError(f"x and y must be from 0 to {grid}, not ({u:g}, {v:g})")
    return reference.point_feature(features, x, y)


def _check_maps(features: Floats) -> Floats:
    """Check the map of one picture, (C, G, G), or the stacked maps of several."""
    return check_floats("features", features, (None,) * (4 if np.ndim(features) == 4 else 3))


@lru_cache(maxsize=64)
def _frame_taps(sides: tuple[int, ...], height: int, width: int) -> tuple[Taps, Taps]:
    """Return rows and columns of the chain from square maps through the sides to the frame."""
    box = Letterbox(height, width, sides[-1])
    return chain_taps(sides, box.new_height, height), chain_taps(sides, box.new_width, width)


@lru_cache(maxsize=64)
def _picture_taps(fixed: bool, side: int, height: int, width: int) -> tuple[Taps, Taps]:
    """Return rows and columns of a frame's resize into a square, in fixed point or in float."""
    box = Letterbox(height, width, side)
    if fixed:
        return pillow_taps(height, box.new_height), pillow_taps(width, box.new_width)
    return chain_taps((height,), height, box.new_height), chain_taps((width,), width, box.new_width)


def _taps(device: Device, taps: Taps) -> tuple[Array, Array]:
    return device.constant(taps.source), device.constant(taps.weight)


@lru_cache(maxsize=64)
def _levels(mean: tuple[float, float, float], std: tuple[float, float, float]) -> Floats:
    """Return the normalised value of each byte of each channel, (3, 256)."""
    byte = np.arange(256, dtype=np.float32) / np.float32(255)
    return _frozen((byte - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None])


@lru_cache(maxsize=256)
def _boxes(box: Box, count: int = 1) -> NDArray[np.int32]:
    """Return one box for each of `count` maps."""
    limit = np.iinfo(np.int32)
    return _frozen(np.tile(np.clip(np.asarray(box), limit.min, limit.max).astype(np.int32), (count, 1)))


@lru_cache(maxsize=1)
def _black() -> Frame:
    return _frozen(np.zeros((1, 1, 1, 3), np.uint8))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
