"""The SAM-G frame against an independent, slow walk through it, on both kinds of bundle and every backend."""

from __future__ import annotations

import numpy as np
import pytest

from samg_fast import Segmenter, Target
from samg_fast.pipeline.stopwatch import STAGES
from support.slow_walk import SlowWalk
from support.synthetic_bundle import picture

# Networks round differently on different backends; the logits here are of order 1 to 10.
TOLERANCE = 2e-4


def identified(segmenter: Segmenter, height: int, width: int) -> Target:
    frame, mask = picture(height, width)
    rows, columns = np.nonzero(mask)
    part = mask & (np.arange(height)[:, None] < np.median(rows))
    return segmenter.identify(frame, mask, points=[(float(np.median(columns)), float(np.median(rows)))], parts=[part])


@pytest.mark.parametrize(("height", "width", "seed"), [(84, 84, 1), (40, 60, 2), (75, 33, 3)])
def test_equals_slow_walk(segmenter: Segmenter, height: int, width: int, seed: int) -> None:
    pytest.importorskip("onnxruntime")
    target = identified(segmenter, height, width)
    frame, _ = picture(height, width, seed)
    out = segmenter.segment(frame, target, trace=True)
    seen = SlowWalk(segmenter.bundle.path).walk(frame, target)

    assert out.trace is not None
    assert len(out.trace.similarity) == 3
    for got, wanted in zip(out.trace.similarity, seen.similarity, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6)
    assert len(out.trace.decodes) == 3
    for turn, decode in enumerate(out.trace.decodes):
        assert decode.points.tolist() == [list(map(float, point)) for point in seen.points[turn]]
        assert decode.labels.tolist() == seen.labels[turn]
        assert decode.box == seen.boxes[turn]
        np.testing.assert_allclose(decode.iou, seen.iou[turn], atol=TOLERANCE)
        np.testing.assert_allclose(decode.low_res, seen.low_res[turn], atol=TOLERANCE)
        assert (decode.mask != seen.masks[turn]).mean() < 1e-3
    assert (out.mask == out.trace.decodes[2].mask).all()
    assert out.score == pytest.approx(seen.score, abs=TOLERANCE)


def test_box_is_the_masks(segmenter: Segmenter) -> None:
    target = identified(segmenter, 84, 84)
    out = segmenter.segment(picture(84, 84, 4)[0], target)
    rows, columns = np.nonzero(out.mask)
    assert out.box == (columns.min(), rows.min(), columns.max(), rows.max())


def test_masked_and_types(segmenter: Segmenter) -> None:
    target = identified(segmenter, 40, 60)
    frame, _ = picture(40, 60, 5)
    out = segmenter.segment(frame, target)
    before = frame.copy()
    frame[:] = 0  # a caller may draw the next frame into the same array
    assert (out.masked == np.where(out.mask[..., None], before, 0)).all()
    assert out.masked.dtype == np.uint8
    assert out.mask.dtype == np.bool_
    assert out.mask.shape == (40, 60)
    assert out.trace is None


def test_timings(segmenter: Segmenter) -> None:
    out = segmenter.segment(picture(84, 84)[0], identified(segmenter, 84, 84))
    assert set(out.timings) == {*STAGES, "total"}
    assert out.timings["total"] == pytest.approx(sum(out.timings[stage] for stage in STAGES), rel=0.05, abs=0.2)
    assert (out.timings["features"] == 0) == segmenter.bundle.manifest.shared_graph


def test_trace_outlives_the_next_frame(segmenter: Segmenter) -> None:
    target = identified(segmenter, 84, 84)
    first = segmenter.segment(picture(84, 84, 1)[0], target, trace=True)
    assert first.trace is not None
    kept = [(decode.low_res.copy(), decode.iou.copy()) for decode in first.trace.decodes]
    segmenter.segment(picture(84, 84, 2)[0], target)
    for decode, (low_res, iou) in zip(first.trace.decodes, kept, strict=True):
        assert (decode.low_res == low_res).all()
        assert (decode.iou == iou).all()


def test_frame_sizes_take_turns(segmenter: Segmenter) -> None:
    """Kept arrays must not let one frame's letterbox leak into the next."""
    target = identified(segmenter, 84, 84)
    wide, square = picture(30, 90, 3)[0], picture(84, 84, 4)[0]
    first = segmenter.segment(wide, target)
    segmenter.segment(square, target)
    again = segmenter.segment(wide, target)
    assert (first.mask == again.mask).all()
    assert first.score == again.score


def test_mask_weights_matter(segmenter: Segmenter) -> None:
    from dataclasses import replace

    target = identified(segmenter, 84, 84)
    other = replace(target, mask_weights=np.array([1, 0, 0], np.float32))
    frame, _ = picture(84, 84, 6)
    ours, theirs = (segmenter.segment(frame, each, trace=True).trace for each in (target, other))
    assert ours is not None
    assert theirs is not None
    assert (ours.decodes[0].low_res == theirs.decodes[0].low_res).all()
    assert (ours.decodes[1].low_res != theirs.decodes[1].low_res).any()
    assert (theirs.decodes[0].mask != ours.decodes[0].mask).any()
