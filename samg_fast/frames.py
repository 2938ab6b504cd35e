"""The SAM-G frame: similarity to points, and three decodes that refine one mask (arXiv 2312.17116)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samg_fast import ops
from samg_fast.arrays import Box, Floats, Frame, Mask
from samg_fast.networks import Maps, Networks
from samg_fast.prompts import NEGATIVE, POSITIVE, Prompt
from samg_fast.results import Decode, Segmentation, Trace
from samg_fast.stopwatch import Stopwatch
from samg_fast.target import Target

__all__ = ["first_logits", "segment_frames"]

_DECODES = 3


def segment_frames(networks: Networks, frames: Frame, targets: Sequence[Target], trace: bool) -> list[Segmentation]:
    """Segment a batch of frames.

    Parameters
    ----------
    networks : Networks
    frames : (B, H, W, 3) uint8 array
    targets : sequence of B Target
        Made with the networks' bundle.
    trace : bool
        Whether to keep what every step saw.

    Returns
    -------
    list of B Segmentation
    """
    clock = Stopwatch()
    every = range(len(frames))
    maps = networks.encode(frames, clock)
    similarity = [networks.similarity(maps, index, target) for index, target in enumerate(targets)]
    clock.lap("similarity")
    prompts = [_first_prompt(each) for each in similarity]
    clock.lap("points")
    decodes: list[list[Decode]] = [[] for _ in every]
    settled: Floats | None = None  # the logits (B, 4G, 4G) of the decode before
    best = np.zeros(len(frames), np.intp)
    for turn in range(_DECODES):
        low_res, iou = networks.decode(maps, prompts, settled)
        if turn == 0:
            weights = np.stack([target.mask_weights for target in targets])
            settled = np.einsum("bm,bmyx->byx", weights, low_res)
        else:
            best = iou.argmax(axis=1)
            settled = low_res[every, best]
        clock.lap("decodes")
        masks = networks.to_frame(settled, maps.size) > 0
        boxes = [ops.mask_box(mask) for mask in masks]
        clock.lap("resize")
        if trace:
            for index in every:
                decodes[index].append(_seen(prompts[index], iou[index], low_res[index], masks[index]))
            clock.skip()
        if turn < _DECODES - 1:
            # The second decode looks for what is least like the target inside its box, the third takes the global point
            # again.
            prompts = [
                prompt.refined(_least(similar[0], box) if turn == 0 else prompt.points[1], box)
                for prompt, similar, box in zip(prompts, similarity, boxes, strict=True)
            ]
            clock.lap("points")
    timings = clock.milliseconds(len(frames))
    return [
        Segmentation(
            frame=frames[index].copy(),
            mask=masks[index],
            score=float(iou[index, best[index]]),
            box=boxes[index] if masks[index].any() else None,
            timings=timings.copy(),
            trace=Trace(similarity=list(similarity[index]), decodes=tuple(decodes[index])) if trace else None,
        )
        for index in every
    ]


def first_logits(networks: Networks, maps: Maps, target: Target) -> Floats:
    """Return the logits of the first decode's three masks at the frame's size, (3, H, W) float32.

    Adaptation learns from them. Of a batch, the first frame counts.
    """
    low_res, _ = networks.decode(maps, [_first_prompt(networks.similarity(maps, 0, target))], None)
    return networks.to_frame(low_res[0], maps.size)


def _first_prompt(similarity: Floats) -> Prompt:
    """Point at what is most and least like the target, and at what is most like each part."""
    height, width = similarity.shape[1:]
    positive, *parts = (_point(each, largest=True, box=None) for each in similarity)
    negative = _least(
        similarity[0], (0, 0, width - 1, height - 1)
    )  # the official box leaves out the last row and column
    return Prompt((positive, negative, *parts), (POSITIVE, NEGATIVE, *(POSITIVE for _ in parts)))


def _least(similarity: Floats, box: Box) -> tuple[int, int]:
    """Find the point least like the target, not in the box's last row or column; (0, 0) where nothing is left."""
    return _point(similarity, largest=False, box=box)


def _point(similarity: Floats, *, largest: bool, box: Box | None) -> tuple[int, int]:
    x, y = ops.topk_points(similarity, 1, largest, box)[0].tolist()
    return x, y


def _seen(prompt: Prompt, iou: Floats, low_res: Floats, mask: Mask) -> Decode:
    return Decode(
        points=np.array(prompt.points, np.float32),
        labels=np.array(prompt.labels, np.int64),
        box=prompt.box,
        iou=iou.copy(),
        low_res=low_res.copy(),
        mask=mask,
    )
