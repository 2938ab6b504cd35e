"""What identifies a target, once per task: the grid cells it covers, and its point features."""

from __future__ import annotations

import numpy as np

from samg_fast.bundle import NetworkSpec
from samg_fast.checks import Floats, Frame, Mask, check_floats, check_frame, check_mask, describe
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops import reference
from samg_fast.ops.geometry import Letterbox, cell_matrix
from samg_fast.ops.reference import Coordinates

__all__ = ["mask_cells", "mask_feature", "masked_picture_cells", "point_feature"]


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
        May have no cell set: a speck can fall between the samples of a coarse grid.

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
    """Say which grid cells the target of a masked image reaches, as the official code does.

    The image, black outside the target, is preprocessed for the encoder and resized to the grid. A cell belongs to the
    target where the first normalised channel is above 0, that is, where red is above the encoder's mean red.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, black outside the target.
    spec : NetworkSpec
        The encoder's.

    Returns
    -------
    (grid, grid) bool array
        May have no cell set.

    Raises
    ------
    InputTypeError, InputError
        `picture` is not a uint8 RGB image.
    """
    return reference.masked_picture_cells(check_frame("picture", picture), spec)


def mask_feature(features: Floats, cells: Mask) -> Floats:
    """Point feature of a mask: the features of its cells, in one image or in several, pooled.

    Pooling is (max + mean) / 2, L2-normalised; see `samg_fast.ops.reference.pool_features`.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of an image, or those of R images.
    cells : (G, G) or (R, G, G) bool array
        At least one is set. An image that does not show the target has none.

    Returns
    -------
    (C,) float32 array

    Raises
    ------
    InputTypeError, InputError
        An argument has the wrong dtype or shape, or no cell is set.
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
    """Point feature of a point that a person gave: sampled bilinearly from the raw map.

    Of one image, that is the sample, L2-normalised; samples of several images are pooled as in `mask_feature`.

    Parameters
    ----------
    features : (C, G, G) or (R, C, G, G) float32 array
        The raw map of an image, or those of R images.
    x, y : float or (R,) float array
        In cells, from 0 to G, without a half-pixel shift: the point (x, y) of a square frame is (x / W * G, y / H * G).
        Beyond G - 1, the last cell's index, the last cell counts.

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
    """Check the map of one image, (C, G, G), or the stacked maps of several."""
    return check_floats("features", features, (None,) * (4 if np.ndim(features) == 4 else 3))
