"""The SAM-G frame: similarity to points, and three decodes that refine one mask (arXiv 2312.17116)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samg_fast.checks import Box, Floats, Frame, Mask
from samg_fast.pipeline.networks import Maps, Networks
from samg_fast.pipeline.prompts import NEGATIVE, POSITIVE, Prompt
from samg_fast.pipeline.stopwatch import Stopwatch
from samg_fast.results import Decode, Segmentation, Trace
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
    prompts = [_first_prompt(networks, each) for each in similarity]
    clock.lap("points")
    decodes: list[list[Decode]] = [[] for _ in every]
    weights = np.stack([target.mask_weights for target in targets])
    settled: Floats | None = None  # the logits (B, 4G, 4G) of the decode before
    for turn in range(_DECODES):
        low_res, iou = networks.decode(maps, prompts, settled)
        clock.lap("decodes")
        # The first decode's masks are weighted, of the others' the one with the best predicted IoU is taken
        choice: dict[str, Floats] = {"weights": weights} if turn == 0 else {"iou": iou}
        found = networks.resize_logits(low_res, maps.size, **choice)
        settled = found.settled
        boxes: list[Box] = [(x0, y0, x1, y1) for x0, y0, x1, y1 in found.box.tolist()]
        clock.lap("resize")
        if trace:
            for index in every:
                decodes[index].append(_seen(prompts[index], iou[index], low_res[index], found.mask[index]))
            clock.skip()
        if turn < _DECODES - 1:
            # The second decode looks for what is least like the target inside its box, the third takes the global point
            # again.
            prompts = [
                prompt.refined(_least(networks, similar[:1], box) if turn == 0 else prompt.points[1], box)
                for prompt, similar, box in zip(prompts, similarity, boxes, strict=True)
            ]
            clock.lap("points")
    timings = clock.milliseconds(len(frames))
    return [
        Segmentation(
            frame=frames[index].copy(),
            mask=found.mask[index],
            score=float(iou[index, found.chosen[index]]),
            box=boxes[index] if found.area[index] else None,
            timings=timings.copy(),
            trace=Trace(similarity=list(similarity[index]), decodes=tuple(decodes[index])) if trace else None,
        )
        for index in every
    ]


def first_logits(networks: Networks, maps: Maps, target: Target) -> Floats:
    """Return the logits of the first decode's three masks at the frame's size, (3, H, W) float32.

    Adaptation learns from them. Of a batch, the first frame counts.
    """
    low_res, _ = networks.decode(maps, [_first_prompt(networks, networks.similarity(maps, 0, target))], None)
    return networks.to_frame(low_res[0], maps.size)


def _first_prompt(networks: Networks, similarity: Floats) -> Prompt:
    """Point at what is most and least like the target, and at what is most like each part."""
    height, width = similarity.shape[1:]
    positive, *parts = networks.point(similarity, largest=True)
    # The official box leaves out the last row and column
    negative = _least(networks, similarity[:1], (0, 0, width - 1, height - 1))
    return Prompt((positive, negative, *parts), (POSITIVE, NEGATIVE, *(POSITIVE for _ in parts)))


def _least(networks: Networks, similarity: Floats, box: Box) -> tuple[int, int]:
    """Find the point of one map (1, H, W) least like the target, not in the box's last row or column.

    (0, 0) stands for it where nothing is left.
    """
    return networks.point(similarity, largest=False, box=box)[0]


def _seen(prompt: Prompt, iou: Floats, low_res: Floats, mask: Mask) -> Decode:
    return Decode(
        points=np.array(prompt.points, np.float32),
        labels=np.array(prompt.labels, np.int64),
        box=prompt.box,
        iou=iou.copy(),
        low_res=low_res.copy(),
        mask=mask,
    )
