"""The definitions of the operations of a SAM-G frame outside the networks, in plain NumPy and float32.

`samg_fast.ops` documents each operation, checks its input and runs it fast; the function of the same name here says
what the right result is, and tests compare the two. A definition takes what its operation takes, without a batch axis
unless it says otherwise, and checks nothing. It is written to be read next to the paper (arXiv 2312.17116) and
segment-anything's predictor: one step at a time, nothing cached.
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
"""x or y of a point: one number, or one for each of several images."""

_SMALLEST_NORM = 1e-12
"""The minimum to divide a vector by, so that a zero vector stays zero (torch's normalize does the same)."""


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
    """Define `samg_fast.ops.preprocess`: a batch of frames, for one network."""
    batch, height, width, _ = frames.shape
    box = Letterbox(height, width, spec.side)
    out = np.zeros((batch, 3, spec.side, spec.side), np.float32)
    mean = np.asarray(spec.mean, np.float32)[:, None, None]
    std = np.asarray(spec.std, np.float32)[:, None, None]
    for index, frame in enumerate(frames):
        if spec.resize == "uint8":
            # One axis at a time: Pillow 13 may resize the rows first, which rounds to other values.
            wide = Image.fromarray(frame).resize((box.new_width, height), Image.Resampling.BILINEAR)
            image = np.asarray(wide.resize((box.new_width, box.new_height), Image.Resampling.BILINEAR))
            planes = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        else:
            planes = resize(
                frame.transpose(2, 0, 1).astype(np.float32) / np.float32(255), box.new_height, box.new_width
            )
        out[index, :, : box.new_height, : box.new_width] = (planes - mean) / std
    return out


def lift(features: Floats, grid: int) -> Floats:
    """Resize a (..., g, g) map to the grid of the SAM map; its cells are normalised afterwards."""
    return resize(features, grid, grid)


def to_frame(maps: Floats, sides: tuple[int, ...], height: int, width: int) -> Floats:
    """Resize square maps to the frame: up to the prompt frame, crop what the frame covers, resize that.

    Parameters
    ----------
    maps : (K, n, n) float32 array
    sides : tuple of int
        The sides to resize to in turn; the last is P, the prompt frame's.
    height, width : int
        Size of the frame, in pixels.

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
    """Define `samg_fast.ops.similarity_map`."""
    grid = sam_map.shape[-1]
    sam = unit(sam_map, axis=0)
    dino = unit(lift(dino_map, grid), axis=0)
    cosines = (np.einsum("kc,cyx->kyx", sam_features, sam) + np.einsum("kc,cyx->kyx", dino_features, dino)) / 2
    return to_frame(cosines.astype(np.float32), (4 * grid, prompt_side), height, width)


def topk_points(values: Floats, k: int, largest: bool, box: Box | None = None) -> NDArray[np.int32]:
    """Define `samg_fast.ops.topk_points`; `box` is a tuple."""
    x0, y0, x1, y1 = box if box is not None else (0, 0, values.shape[1], values.shape[0])
    inside = [
        (y, x) for y in range(max(y0, 0), min(y1, len(values))) for x in range(max(x0, 0), min(x1, values.shape[1]))
    ]
    clean = np.where(np.isnan(values), -np.inf, values)
    inside.sort(key=lambda cell: -clean[cell] if largest else clean[cell])  # stable: ties stay in row-major order
    out = np.zeros((k, 2), np.int32)
    for index, (y, x) in enumerate(inside[:k]):
        out[index] = x, y
    return out


class ResizedLogits(NamedTuple):
    """Masks of B decodes at the frame's size, with what the next decode needs.

    Parameters
    ----------
    settled : (B, 4G, 4G) float32 array
        The one mask that was made of each decode's M: the next decode's mask input.
    logits : (B, H, W) float32 array
    mask : (B, H, W) bool array
        Where logits are above 0.
    area : (B,) int32 array
        Pixels of the mask.
    box : (B, 4) int32 array
        Bounding box (x_min, y_min, x_max, y_max), corners inclusive; (1, 1, W - 1, H - 1) of an empty mask, as in the
        official code.
    chosen : (B,) int32 array
        Index of the mask that was taken; -1 for a weighted sum.
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
    """Define `samg_fast.ops.resize_logits`, of a batch."""
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
    """Define `samg_fast.ops.prompt_assembly`, of a batch."""
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
    """Define `samg_fast.ops.mask_cells`."""
    box = Letterbox(mask.shape[0], mask.shape[1], side)
    square = np.zeros((side, side), np.float32)
    square[: box.new_height, : box.new_width] = resize(mask.astype(np.float32), box.new_height, box.new_width)
    return np.asarray(resize(square, grid, grid) > 0)


def masked_picture_cells(picture: Frame, spec: NetworkSpec) -> Mask:
    """Define `samg_fast.ops.masked_picture_cells`."""
    return np.asarray(resize(preprocess(picture[None], spec)[0, 0], spec.grid, spec.grid) > 0)


def pool_features(vectors: Floats) -> Floats:
    """Pool vectors of raw maps into one point feature: (max + mean) / 2, L2-normalised.

    For one image this is SAM-G's own definition. Vectors of several images are pooled as if all came from one large
    image, so each counts the same wherever it came from. The alternative, to pool each image alone and to average the
    results, helped the shipped bundle less.

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
    """Define `samg_fast.ops.mask_feature`, of one image or of several."""
    return pool_features(np.moveaxis(features, -3, 0)[:, cells])


def point_feature(features: Floats, x: Coordinates, y: Coordinates) -> Floats:
    """Define `samg_fast.ops.point_feature`, of one image or of several."""
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
    """Define `samg_fast.ops.apply_mask`, with or without a batch."""
    behind = np.zeros(3, np.uint8) if background is None else background
    return np.where(mask[..., None], frame, behind)
