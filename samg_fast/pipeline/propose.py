"""Masks from clicks, boxes and earlier masks, as SAM itself is prompted: what a reference's mask can be made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Box, Floats, Frame, Mask, check_box, check_frame, check_mask, check_points, describe
from samg_fast.errors import InputError, InputTypeError
from samg_fast.ops.geometry import Letterbox
from samg_fast.ops.reference import resize
from samg_fast.pipeline.networks import Networks
from samg_fast.pipeline.schedule import PointSlots
from samg_fast.pipeline.stopwatch import Stopwatch

__all__ = ["Prompts", "Proposals", "propose"]

_SURE = 8.0
"""Logit of a pixel that an earlier mask has; of the others, the negative. Decoders give about as much inside a mask."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Proposals:
    """What the decoder makes of clicks, a box or an earlier mask: three masks, of a whole or of parts of it.

    Parameters
    ----------
    masks : (3, H, W) bool array
        In the decoder's order.
    scores : (3,) float32 array
        Predicted IoU of each.
    logits : (3, 4G, 4G) float32 array
        Of each, at the decoder's resolution.
    """

    masks: Mask
    scores: Floats
    logits: Floats

    @property
    def chosen(self) -> int:
        """Which one has the best predicted IoU."""
        return int(np.argmax(self.scores))

    @property
    def best(self) -> Mask:
        """The mask with the best predicted IoU, (H, W) bool."""
        best: Mask = self.masks[self.chosen]
        return best

    @property
    def found(self) -> Mask:
        """`best`, which is not empty.

        Raises
        ------
        InputError
            It is empty.
        """
        if not self.best.any():
            raise InputError("nothing is found there: add clicks, give a box around the target, or give its mask")
        return self.best


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of one image, checked.

    Parameters
    ----------
    image : (H, W, 3) uint8 array
    points : (n, 2) int32 array
    labels : (n,) int32 array
    box : tuple or None
    mask : (H, W) bool array or None
    """

    image: Frame
    points: NDArray[np.int32]
    labels: NDArray[np.int32]
    box: Box | None
    mask: Mask | None

    @classmethod
    def check(cls, image: Any, points: Any, labels: Any, box: Any, mask: Any, slots: int) -> Prompts:
        """Check what a user gave; see `Segmenter.propose`. The decoder has so many slots for points."""
        image = check_frame("image", image)
        at = check_points("points", points, image.shape)
        corners = None if box is None else check_box("box", box, image.shape)
        earlier = None if mask is None else check_mask("mask", mask, image.shape)
        if not len(at) and corners is None and earlier is None:
            raise InputError("points, box and mask are all left out: one of them must say where the target is")
        most = slots - (1 if corners is None else 2)
        if len(at) > most:
            raise InputError(f"points are {len(at)}, but the decoder takes {most} at most")
        return cls(image, np.floor(at).astype(np.int32), _labels(labels, len(at)), corners, earlier)


def propose(networks: Networks, prompts: Prompts) -> Proposals:
    """Decode click by click, as if each was made when the masks before it were seen; see `Segmenter.propose`.

    Given all clicks at once, a decoder does less well: official ones were trained so, and tiny too.
    """
    maps = networks.encode(prompts.image[None], Stopwatch())
    box = None if prompts.box is None else np.array([prompts.box], np.int32)
    earlier = None if prompts.mask is None else _as_logits(networks, prompts.mask)[None]
    points = prompts.points if len(prompts.points) else np.zeros((1, 2), np.int32)
    for count in range(min(1, len(prompts.points)), len(prompts.points) + 1):
        slots = PointSlots(np.arange(count, dtype=np.int32)[None], prompts.labels[None, :count])
        low_res, iou = networks.decode(maps, points, slots, box, earlier)
        earlier = low_res[:, np.argmax(iou)].copy()
    return Proposals(masks=networks.to_frame(low_res[0], maps.size) > 0, scores=iou[0].copy(), logits=low_res[0].copy())


def _labels(labels: Any, count: int) -> NDArray[np.int32]:
    """Return the labels of so many points: 1 each where none are given."""
    if labels is None:
        return np.ones(count, np.int32)
    given = np.asarray(labels)
    if given.size == 0:
        given = np.zeros(0, np.int32)
    if given.dtype.kind not in "iub":
        raise InputTypeError(f"labels must be 1 (on the target) or 0 (not on it), not {describe(given)}")
    if given.shape != (count,):
        raise InputError(f"labels must be {count}, one for each point, not of shape {given.shape}")
    if not np.isin(given, (0, 1)).all():
        raise InputError("labels must be 1 (on the target) or 0 (not on it)")
    return given.astype(np.int32)


def _as_logits(networks: Networks, mask: Mask) -> Floats:
    """Bring a mask to what the decoder takes from an earlier decode, (4G, 4G)."""
    side = 4 * networks.bundle.prompted.encoder.grid
    box = Letterbox(mask.shape[0], mask.shape[1], side)
    logits = np.full((side, side), -_SURE, np.float32)
    shown = resize(mask.astype(np.float32), box.new_height, box.new_width)
    logits[: box.new_height, : box.new_width] = _SURE * (2 * shown - 1)
    return logits
