"""The SAM-G frame on the host: similarity to points, and three decodes that refine one mask (arXiv 2312.17116)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samg_fast import ops
from samg_fast.checks import Box, Floats, Frame, Mask
from samg_fast.pipeline.found import segmentations
from samg_fast.pipeline.networks import Maps, Networks
from samg_fast.pipeline.schedule import SCHEDULE, PointSlots, point_rows, point_slots, searched_box
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.results import Decode, Segmentation, Trace
from samg_fast.target import Target

__all__ = ["first_logits", "segment_frames"]


def segment_frames(
    networks: Networks, frames: Frame, targets: Sequence[Target], trace: bool, *, objects: int = 1
) -> list[Segmentation]:
    """Segment a batch of frames.

    Parameters
    ----------
    networks : Networks
    frames : (B, H, W, 3) uint8 array
    targets : sequence of B * N Target
        Made with the networks' bundle; frame by frame.
    trace : bool
        Whether to keep what every step saw.
    objects : int
        N: how many targets each frame has. A frame is encoded once for all of them.

    Returns
    -------
    list of B * N Segmentation
    """
    clock = Stopwatch()
    maps = networks.encode(frames, clock)
    if objects > 1:
        maps, frames = networks.repeat(maps, objects), np.repeat(frames, objects, axis=0)
    similarity = networks.similarity(maps, targets)
    clock.lap("similarity")
    points = _first_points(networks, similarity)
    clock.lap("points")
    weights, features = (np.array([getattr(each, name) for each in targets]) for name in ("mask_weights", "sam"))
    decodes: list[_Seen] = []
    box: NDArray[np.int32] | None = None  # this and the mask input: what the decode before found
    mask_input: Floats | None = None
    for rule, slots in zip(SCHEDULE, point_slots(tuple([target.parts for target in targets])), strict=True):
        if rule.searches_box:
            _search_box(networks, similarity, box, points)
            clock.lap("points")
        asked = box if rule.refines else None
        low_res, iou = networks.decode(maps, points, slots, asked, mask_input, features=features)
        clock.lap("decodes")
        choice: dict[str, Floats] = {"weights": weights} if rule.weighted else {"iou": iou}
        found = networks.resize_logits(low_res, maps.size, **choice)
        box, mask_input = found.box, found.settled
        clock.lap("resize")
        if trace:
            decodes.append(_Seen(points.copy(), slots, asked, iou.copy(), low_res.copy(), found.mask))
            clock.skip()
    timings = clock.milliseconds(len(frames))
    scores = [float(iou[index, chosen]) for index, chosen in enumerate(found.chosen)]
    traces = [_trace(index, target, similarity, decodes) for index, target in enumerate(targets)] if trace else None
    return segmentations(frames, found, scores, timings, networks.bundle.manifest.present, traces)


def first_logits(networks: Networks, maps: Maps, target: Target) -> Floats:
    """Return the logits of the first decode's three masks at the frame's size, (3, H, W) float32.

    Adaptation learns from them. Of a batch, the first frame counts.
    """
    points = _first_points(networks, networks.similarity(maps, [target]))
    low_res, _ = networks.decode(maps, points, point_slots((target.parts,))[0], features=target.sam[None])
    return networks.to_frame(low_res[0], maps.size)


def _first_points(networks: Networks, similarity: Floats) -> NDArray[np.int32]:
    """Point at what is most similar in each map, and least similar to the target; see `point_rows` for which is where.

    `_search_box` adds the points in the boxes of the first decode's masks.
    """
    batch, maps, height, width = similarity.shape
    rows = point_rows(batch, maps)
    points = np.zeros((rows.min_in_box.stop, 2), np.int32)
    every_map, box = similarity.reshape(-1, height, width), searched_box(height, width)
    ops.topk_points(every_map, 1, True, out=points[rows.max, None], device=networks.device)
    ops.topk_points(similarity[:, 0], 1, False, box, out=points[rows.min, None], device=networks.device)
    return points


def _search_box(
    networks: Networks, similarity: Floats, box: NDArray[np.int32] | None, points: NDArray[np.int32]
) -> None:
    """Point at what is least similar to the target inside each frame's box, not in its last row or column."""
    rows = point_rows(*similarity.shape[:2])
    ops.topk_points(similarity[:, 0], 1, False, box, out=points[rows.min_in_box, None], device=networks.device)


class _Seen(NamedTuple):
    """What one decode of a batch got and gave."""

    points: NDArray[np.int32]
    slots: PointSlots
    box: NDArray[np.int32] | None
    iou: Floats
    low_res: Floats
    mask: Mask

    def of_frame(self, index: int) -> Decode:
        """Return what it was for one frame."""
        order, labels = self.slots.order[index], self.slots.labels[index]
        used = order >= 0
        box: Box | None = None if self.box is None else tuple(self.box[index].tolist())
        return Decode(
            points=self.points[order[used]].astype(np.float32),
            labels=labels[used].astype(np.int64),
            box=box,
            iou=self.iou[index],
            low_res=self.low_res[index],
            mask=self.mask[index],
        )


def _trace(index: int, target: Target, similarity: Floats, decodes: Sequence[_Seen]) -> Trace:
    maps = similarity[index, : 1 + target.parts]
    return Trace(similarity=list(maps), decodes=tuple(decode.of_frame(index) for decode in decodes))
