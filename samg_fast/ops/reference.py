"""The operations of a SAM-G frame outside the networks, in plain NumPy and float32: the definition of each.

`samg_fast.ops` has the same names, checks its input and runs fast; tests hold the two against each other. Written to be
read next to the paper (arXiv 2312.17116) and segment-anything's predictor: one step at a time, nothing cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.bundle import NetworkSpec
from samg_fast.checks import Box, Floats, Frame, Mask
from samg_fast.ops.geometry import Letterbox, resize_matrix

__all__ = [
    "ResizedLogits",
    "apply_mask",
    "lift",
    "mask_box",
    "mask_cells",
    "mask_feature",
    "masked_picture_cells",
    "point_feature",
    "pool_features",
    "preprocess",
    "prompt_assembly",
    "resize",
    "resize_logits",
    "similarity_map",
    "to_frame",
    "topk_points",
    "unit",
]

Coordinates = float | NDArray[np.floating]
"""x or y of a point: one number, or one for each of several pictures."""

_SMALLEST_NORM = 1e-12
"""Below it a vector has no direction; dividing by it instead keeps zeros zero (torch's normalize does the same)."""


def resize(maps: Floats, height: int, width: int) -> Floats:
    """Resize maps: bilinear, align_corners False, no antialias.

    Parameters
    ----------
    maps : (..., h, w) float32 array
    height, width : int
        The new size.

    Returns
    -------
    (..., height, width) float32 array
    """
    rows, columns = resize_matrix(maps.shape[-2], height), resize_matrix(maps.shape[-1], width)
    return np.asarray(rows @ maps @ columns.T, np.float32)


def unit(vectors: NDArray[np.floating], axis: int) -> Floats:
    """L2-normalise along an axis; a zero vector stays zero."""
    norm = np.linalg.norm(vectors, axis=axis, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, _SMALLEST_NORM), np.float32)


def preprocess(frames: Frame, spec: NetworkSpec) -> Floats:
    """Turn frames into a network's input: letterbox, normalise, zero-pad right and bottom.

    Parameters
    ----------
    frames : (B, H, W, 3) uint8 array
        RGB.
    spec : NetworkSpec
        Its `side`, `mean`, `std` and `resize`. ``"uint8"`` resizes the picture with Pillow's bilinear filter, columns
        first, rounding to uint8 after each axis (SAM); ``"float"`` divides by 255 and resizes in float (DINOv2).

    Returns
    -------
    (B, 3, side, side) float32 array
    """
    batch, height, width, _ = frames.shape
    box = Letterbox(height, width, spec.side)
    out = np.zeros((batch, 3, spec.side, spec.side), np.float32)
    mean = np.asarray(spec.mean, np.float32)[:, None, None]
    std = np.asarray(spec.std, np.float32)[:, None, None]
    for index, frame in enumerate(frames):
        if spec.resize == "uint8":
            # One axis after the other: left to itself, Pillow 13 takes the rows first at times, and rounds otherwise.
            wide = Image.fromarray(frame).resize((box.new_width, height), Image.Resampling.BILINEAR)
            picture = np.asarray(wide.resize((box.new_width, box.new_height), Image.Resampling.BILINEAR))
            planes = picture.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        else:
            planes = resize(
                frame.transpose(2, 0, 1).astype(np.float32) / np.float32(255), box.new_height, box.new_width
            )
        out[index, :, : box.new_height, : box.new_width] = (planes - mean) / std
    return out


def lift(features: Floats, grid: int) -> Floats:
    """Bring a (..., g, g) map to the SAM map's grid, before any normalisation."""
    return resize(features, grid, grid)


def to_frame(maps: Floats, sides: tuple[int, ...], height: int, width: int) -> Floats:
    """Bring square maps to the frame: resize up to the prompt frame, crop what the frame covers, resize.

    Parameters
    ----------
    maps : (K, n, n) float32 array
    sides : tuple of int
        The sides to go through; the last is P, the prompt frame's.
    height, width : int
        The frame, in pixels.

    Returns
    -------
    (K, height, width) float32 array
    """
    for side in sides:
        maps = resize(maps, side, side)
    box = Letterbox(height, width, sides[-1])
    return resize(maps[:, : box.new_height, : box.new_width], height, width)


def similarity_map(
    sam_features: Floats,
    dino_features: Floats,
    sam_map: Floats,
    dino_map: Floats,
    *,
    prompt_side: int,
    height: int,
    width: int,
) -> Floats:
    """Cosine similarity of K features with every cell of both maps, averaged, at the frame's size.

    Parameters
    ----------
    sam_features : (K, C1) float32 array
    dino_features : (K, C2) float32 array
        L2-normalised point features.
    sam_map : (C1, G, G) float32 array
    dino_map : (C2, g, g) float32 array
        Raw maps; the second is brought to G x G before its cells are normalised.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        The frame, in pixels.

    Returns
    -------
    (K, height, width) float32 array
        The way to the frame is G, 4G, P, crop, frame.
    """
    grid = sam_map.shape[-1]
    sam = unit(sam_map, axis=0)
    dino = unit(lift(dino_map, grid), axis=0)
    cosines = (np.einsum("kc,cyx->kyx", sam_features, sam) + np.einsum("kc,cyx->kyx", dino_features, dino)) / 2
    return to_frame(cosines.astype(np.float32), (4 * grid, prompt_side), height, width)


def topk_points(values: Floats, k: int, largest: bool, box: Box | None = None) -> NDArray[np.int32]:
    """Find the k largest or smallest values of a map.

    Parameters
    ----------
    values : (H, W) float32 array
        A NaN counts as minus infinity.
    k : int
        How many.
    largest : bool
        The largest, or the smallest.
    box : tuple, optional
        (x0, y0, x1, y1): only rows y0 .. y1 - 1 and columns x0 .. x1 - 1 count. By default the whole map.

    Returns
    -------
    (k, 2) int32 array
        (x, y) points, best first; among equal values the lowest row-major index comes first. Where the box holds fewer
        than k pixels, (0, 0) stands for the missing ones, as in the official code.
    """
    x0, y0, x1, y1 = box if box is not None else (0, 0, values.shape[1], values.shape[0])
    inside = [
        (y, x) for y in range(max(y0, 0), min(y1, len(values))) for x in range(max(x0, 0), min(x1, values.shape[1]))
    ]
    clean = np.where(np.isnan(values), -np.inf, values)
    inside.sort(key=lambda cell: -clean[cell] if largest else clean[cell])  # stable, so ties stay in row-major order
    out = np.zeros((k, 2), np.int32)
    for index, (y, x) in enumerate(inside[:k]):
        out[index] = x, y
    return out


class ResizedLogits(NamedTuple):
    """What decodes come to at the frame's size.

    Parameters
    ----------
    settled : (B, 4G, 4G) float32 array
        The masks' weighted sum, or the chosen one: the next decode's mask input.
    logits : (B, H, W) float32 array
    mask : (B, H, W) bool array
        Where logits are above 0.
    area : (B,) int32 array
        Pixels of the mask.
    box : (B, 4) int32 array
        Bounding box (x_min, y_min, x_max, y_max), corners inclusive; (1, 1, W - 1, H - 1) of an empty mask, as in the
        official code.
    chosen : (B,) int32 array
        Which mask it is; -1 for a weighted sum.
    """

    settled: Floats
    logits: Floats
    mask: Mask
    area: NDArray[np.int32]
    box: NDArray[np.int32]
    chosen: NDArray[np.int32]


def resize_logits(
    low_res: Floats,
    *,
    weights: Floats | None = None,
    iou: Floats | None = None,
    prompt_side: int,
    height: int,
    width: int,
) -> ResizedLogits:
    """Make one mask of the masks of each decode, and bring it to the frame: P, crop, frame.

    Parameters
    ----------
    low_res : (B, M, 4G, 4G) float32 array
        Logits of M masks.
    weights : (B, M) float32 array, optional
        The masks are summed with these weights.
    iou : (B, M) float32 array, optional
        Or the mask with the highest predicted IoU is taken, the first of equal ones. A NaN counts as minus infinity.
    prompt_side : int
        P, the side of the prompt frame.
    height, width : int
        The frame, in pixels.

    Returns
    -------
    ResizedLogits
    """
    batch = np.arange(len(low_res))
    if weights is not None:
        settled = np.einsum("bm,bmyx->byx", weights, low_res).astype(np.float32)
        chosen = np.full(len(low_res), -1, np.int32)
    else:
        predicted = np.asarray(iou, np.float32)
        chosen = np.where(np.isnan(predicted), -np.inf, predicted).argmax(axis=1).astype(np.int32)
        settled = low_res[batch, chosen]
    logits = to_frame(settled, (prompt_side,), height, width)
    mask = logits > 0
    area = mask.sum(axis=(1, 2), dtype=np.int32)
    return ResizedLogits(settled, logits, mask, area, np.array([mask_box(each) for each in mask], np.int32), chosen)


def prompt_assembly(
    points: NDArray[np.int32],
    order: NDArray[np.int32],
    labels: NDArray[np.int32],
    boxes: NDArray[np.int32] | None,
    *,
    scale: tuple[float, float],
    slots: int,
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

    Returns
    -------
    point_coords : (B, N, 2) float32 array
        In pixels of the prompt frame, without SAM's +0.5: the points, then the box's corners or, where there is none,
        SAM's "not a point" at (0, 0), then empty slots.
    point_labels : (B, N) float32 array
        As the decoder reads them: 1, 0, 2 and 3 for the corners, -1 for "not a point", -2 for an empty slot.
    """
    batch, count = order.shape
    points = np.broadcast_to(points, (batch, *points.shape[-2:]))
    coords = np.zeros((batch, slots, 2), np.float32)
    slot_labels = np.full((batch, slots), -2, np.float32)
    for frame, (places, kinds) in enumerate(zip(order, labels, strict=True)):
        for slot, (place, kind) in enumerate(zip(places, kinds, strict=True)):
            if 0 <= place < points.shape[1]:
                coords[frame, slot], slot_labels[frame, slot] = points[frame, place], kind
        if boxes is None:
            slot_labels[frame, count] = -1
        else:
            coords[frame, count : count + 2] = boxes[frame].reshape(2, 2)
            slot_labels[frame, count : count + 2] = 2, 3
    return coords * np.array(scale, np.float32), slot_labels


def mask_box(mask: Mask) -> Box:
    """Bounding box of a mask, corners inclusive; (1, 1, W - 1, H - 1) if it is empty, as in the official code."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return 1, 1, mask.shape[1] - 1, mask.shape[0] - 1
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def mask_cells(mask: Mask, *, side: int, grid: int) -> Mask:
    """Say which grid cells a mask reaches: letterboxed to the encoder's side, resized to the grid, above 0.

    Parameters
    ----------
    mask : (H, W) bool array
    side, grid : int
        The encoder's input side and grid.

    Returns
    -------
    (grid, grid) bool array
    """
    box = Letterbox(mask.shape[0], mask.shape[1], side)
    square = np.zeros((side, side), np.float32)
    square[: box.new_height, : box.new_width] = resize(mask.astype(np.float32), box.new_height, box.new_width)
    return np.asarray(resize(square, grid, grid) > 0)


def masked_picture_cells(picture: Frame, spec: NetworkSpec) -> Mask:
    """Say which grid cells a masked picture's target reaches, the official way.

    The picture, black outside the target, goes through the encoder's preprocessing and is resized to the grid; a cell
    belongs to the target where the first normalised channel is above 0, so where red is above the mean's.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
    spec : NetworkSpec
        The encoder's.

    Returns
    -------
    (grid, grid) bool array
    """
    return np.asarray(resize(preprocess(picture[None], spec)[0, 0], spec.grid, spec.grid) > 0)


def pool_features(vectors: Floats) -> Floats:
    """Pool the vectors of a raw map, or of several maps, into one point feature: (max + mean) / 2, L2-normalised.

    For one picture this is SAM-G's own definition. Vectors from several pictures are pooled as if all came from one big
    picture, so each counts the same wherever it came from. Pooling each picture alone and averaging what comes out was
    tried too, and helped the shipped bundle less.

    Parameters
    ----------
    vectors : (C, n) float32 array
        At least one.

    Returns
    -------
    (C,) float32 array
    """
    return unit((vectors.max(axis=1) + vectors.mean(axis=1)) / 2, axis=0)


def mask_feature(features: Floats, cells: Mask) -> Floats:
    """Point feature of a mask: the cells inside it, in one picture or in several, pooled by `pool_features`.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of a picture, or those of R pictures.
    cells : (G, G) or (R, G, G) bool array
        At least one is set; a picture that does not show what is meant has none.

    Returns
    -------
    (C,) float32 array
    """
    return pool_features(np.moveaxis(features, -3, 0)[:, cells])


def point_feature(features: Floats, x: Coordinates, y: Coordinates) -> Floats:
    """Point feature of a human point: bilinear samples of the raw maps of one or more pictures, pooled.

    Of one picture, that is the sample, L2-normalised; those of several are pooled by `pool_features`.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of a picture, or those of R pictures.
    x, y : float or (R,) float array
        In cells, without a half-pixel shift: a square frame's point (x, y) is (x / W * G, y / H * G). Beyond the last
        cell the last cell counts.

    Returns
    -------
    (C,) float32 array
    """
    maps = features.reshape(-1, *features.shape[-3:])
    places = zip(maps, np.atleast_1d(x), np.atleast_1d(y), strict=True)
    return pool_features(np.stack([_sample(each, float(u), float(v)) for each, u, v in places], axis=1))


def _sample(features: Floats, x: float, y: float) -> Floats:
    """Sample a (C, G, G) map bilinearly."""
    last = features.shape[-1] - 1
    left, top = min(int(x), last), min(int(y), last)
    right, bottom = min(left + 1, last), min(top + 1, last)
    across, down = np.float32(x - left), np.float32(y - top)
    above = features[:, top, left] * (1 - across) + features[:, top, right] * across
    below = features[:, bottom, left] * (1 - across) + features[:, bottom, right] * across
    return np.asarray(above * (1 - down) + below * down, np.float32)


def apply_mask(frame: Frame, mask: Mask, background: Frame | None = None) -> Frame:
    """Masked observation: the frame where the mask is set, the background elsewhere.

    Parameters
    ----------
    frame : (H, W, 3) or (B, H, W, 3) uint8 array
    mask : (H, W) or (B, H, W) bool array
    background : (3,), (H, W, 3) or (B, H, W, 3) uint8 array, optional
        A colour or a picture; black by default.

    Returns
    -------
    array of the frame's shape, uint8
    """
    behind = np.zeros(3, np.uint8) if background is None else background
    return np.where(mask[..., None], frame, behind)
