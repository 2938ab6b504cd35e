"""Targets from reference images: the features of what is to be cut out, in both networks' maps (arXiv 2312.17116)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samg_fast import ops
from samg_fast.checks import Floats, Frame
from samg_fast.errors import InputError
from samg_fast.ops import reference
from samg_fast.ops.geometry import Letterbox
from samg_fast.pipeline.networks import Networks
from samg_fast.pipeline.references import ReferenceImage
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.target import EQUAL_WEIGHTS, Target

__all__ = ["identify"]


def identify(networks: Networks, references: Sequence[ReferenceImage]) -> Target:
    """Make a target of one or more reference images, all with the same parts.

    Parameters
    ----------
    networks : Networks
    references : sequence of ReferenceImage

    Returns
    -------
    Target

    Raises
    ------
    InputError
        The decoder has too few slots for so many parts.
    """
    bundle = networks.bundle
    spec = bundle.prompted.encoder
    cells = np.stack([each.cells for each in references], axis=1)
    boxes = [Letterbox(each.image.shape[0], each.image.shape[1], spec.side) for each in references]
    at = np.stack([box.points(each.points) for box, each in zip(boxes, references, strict=True)], axis=1)
    at *= spec.grid / spec.side
    shown = ~np.isnan(at[..., 0])
    parts = len(cells) - 1 + len(at)
    if parts > bundle.prompted.max_parts:
        raise InputError(
            f"points and parts are {parts} together, but bundle {bundle.name} has slots for "
            f"{bundle.prompted.max_parts} at most"
        )
    features = []
    for maps in zip(*(_dense(networks, each.image) for each in references), strict=True):
        dense = np.stack(maps)
        of_masks = [ops.mask_feature(dense, chosen) for chosen in cells]
        of_points = [ops.point_feature(dense[on], *xy[on].T) for xy, on in zip(at, shown, strict=True)]
        features.append(np.stack(of_masks + of_points))
    sam, dino = features
    return Target(
        sam=sam[0],
        dino=dino[0],
        parts_sam=sam[1:],
        parts_dino=dino[1:],
        mask_weights=EQUAL_WEIGHTS,
        part_is_point=np.arange(parts) >= len(cells) - 1,
        bundle=bundle.name,
        fingerprint=bundle.fingerprint,
    )


def _dense(networks: Networks, image: Frame) -> tuple[Floats, Floats]:
    """Encode an image: copies of both raw maps, on the encoder's grid."""
    maps = networks.encode(image[None], Stopwatch())
    return maps.sam[0].copy(), reference.lift(maps.dino[0], networks.bundle.prompted.encoder.grid)
