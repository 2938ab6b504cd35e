"""Whole SAM-G frames against what the official code gave on the same weights, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import samg_fast
from samg_fast import ops
from support import paths

GOLDEN = paths.GOLDEN / "official"
FEATURE = 1e-4
"""Of a feature's or a map's largest value: what the project promises in float32. Found: 1e-6."""

TASKS = ("walker", "finger", "cartpole", "ball_in_cup")

MARGIN = 1e-3
"""Where the second-best value is nearer than this, another rounding may pick another point."""

LOGITS = (1e-3, 5e-2, 5e-1)
"""Of the largest logit, for each decode. Found: PyTorch 1e-4, 9e-3, 1.4e-1; the backends 2e-4, 3e-2, 3.3e-1.

With random weights the layer norm over four channels that reads the mask input makes differences ten times larger, or
more, in every decode. Noise of 3e-7 on the embedding, which is float32 rounding, is enough for 1e-4, 1e-2 and 1.2e-1.
"""

PIXELS = (4, 40, 600)
"""Of 7,056 in each mask, likewise: logits this near to 0 change sides. Found: 1, 7, 251."""

CORRELATION = 0.99
"""Of the logits: what is left to say where the largest difference is large. Found: 0.996."""


@dataclass(frozen=True)
class Turn:
    """One decode: what was asked and what came.

    Points (n, 2), labels (n,), a box (4,) or None, predicted IoUs (3,), logits (3, 256, 256), areas (3,) in pixels.
    """

    points: NDArray[Any]
    labels: NDArray[Any]
    box: Any
    iou: NDArray[np.float32]
    low_res: NDArray[np.float32]
    areas: NDArray[np.int64]


def assert_close(got: ArrayLike, wanted: NDArray[Any], tolerance: float) -> None:
    """Compare to a part of the largest value."""
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def check_frame(
    golden: Any,
    name: str,
    similarity: Sequence[Any],
    turns: Sequence[Turn],
    masked: NDArray[np.uint8],
    *,
    maps: float,
) -> None:
    """Compare a frame with a golden one as far as both took the same way.

    Parameters
    ----------
    golden : mapping
        A golden file.
    name : str
        The frame in it.
    similarity : sequence of (H, W) arrays
        The target's map, then one per part.
    turns : sequence of 3 Turn
    masked : (H, W, 3) uint8 array
        Masked observation.
    maps : float
        Tolerance of the similarity maps, of the largest value.
    """
    prefix = f"frame.{name}."
    kinds = [0, 0, *range(1, len(similarity)), 0, 0]  # target+, target-, parts+, target- in the box, target-
    for call, kind in enumerate(kinds):
        assert_close(similarity[kind], golden[f"{prefix}similarity{call}.map"], maps)
    for index, turn in enumerate(turns):
        if not _same_points(turn, golden, prefix, index):
            return  # a near tie fell the other way: from here on other prompts are decoded, legitimately
        _compare_decode(turn, golden, prefix, index)
        if index > 0 and not _same_choice(turn, golden, prefix, index):
            return
    assert (masked != golden[prefix + "masked_obs"].transpose(1, 2, 0)).any(axis=2).sum() <= PIXELS[2]


def _same_points(turn: Turn, golden: Any, prefix: str, index: int) -> bool:
    """Compare a decode's points; False where a difference is within the margin that rounding may decide."""
    wanted = golden[f"{prefix}decode{index}.points_xy"]
    assert turn.labels.tolist() == golden[f"{prefix}decode{index}.labels"].tolist()
    assert turn.points.shape == wanted.shape
    for call, (point, official) in enumerate(zip(turn.points.astype(int), wanted, strict=True)):
        if (point != official).any():
            assert golden[f"{prefix}similarity{call}.margin"] <= MARGIN, f"point {call} of decode {index}"
            values = golden[f"{prefix}similarity{call}.map"]
            assert abs(values[point[1], point[0]] - values[official[1], official[0]]) <= MARGIN
            return False
    return True


def _same_choice(turn: Turn, golden: Any, prefix: str, index: int) -> bool:
    """Compare which mask a decode chose; False where another is as good to the decode's tolerance."""
    wanted = golden[f"{prefix}decode{index}.iou"]
    chosen, official = int(turn.iou.argmax()), int(wanted.argmax())
    assert wanted[official] - wanted[chosen] <= 2 * LOGITS[index] * np.abs(wanted).max()
    return chosen == official


def _compare_decode(turn: Turn, golden: Any, prefix: str, index: int) -> None:
    prefix = f"{prefix}decode{index}."
    if index == 0:
        assert turn.box is None
    else:
        np.testing.assert_array_equal(turn.box, golden[prefix + "box"][0])
    assert_close(turn.iou, golden[prefix + "iou"], LOGITS[index])
    low_res, wanted = turn.low_res[:, ::8, ::8], golden[prefix + "low_res_sample"]
    assert_close(low_res, wanted, LOGITS[index])
    assert np.corrcoef(low_res.ravel(), wanted.ravel())[0, 1] > CORRELATION
    np.testing.assert_allclose(turn.areas, golden[prefix + "mask_area"], atol=PIXELS[index])


def check_segmenter(segmenter: samg_fast.Segmenter, target: samg_fast.Target, golden: Any, name: str) -> None:
    """Compare a golden frame with what a segmenter sees and finds, step by step."""
    out = segmenter.segment(golden[f"frame.{name}.image"], target, trace=True)
    assert out.trace is not None
    height, width = out.mask.shape
    turns = [
        Turn(
            each.points,
            each.labels,
            each.box,
            each.iou,
            each.low_res,
            areas(each.low_res, height, width),
        )
        for each in out.trace.decodes
    ]
    check_frame(golden, name, out.trace.similarity, turns, out.masked, maps=FEATURE)


def areas(low_res: Any, height: int, width: int) -> Any:
    """Pixels of each of a decode's masks at the frame's size."""
    alone = np.ones((len(low_res), 1), np.float32)
    return ops.resize_logits(low_res[:, None], weights=alone, prompt_side=1024, height=height, width=width).area
