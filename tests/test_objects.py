"""Several objects in one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import Objects, Segmentation, Segmenter, Target
from samg_fast.bundle import Bundle
from samg_fast.errors import BundleError, InputError, InputTypeError
from support.fixed_batch import fixed_batch
from support.synthetic_bundle import picture, write_bundle, write_fitted_bundle

FRAMES = np.stack([picture(60, 84, seed)[0] for seed in range(3)])


def made(segmenter: Segmenter) -> dict[str, Target]:
    """Return three targets, of which one has parts."""
    shots = [picture(60, 84, 10 + number) for number in range(3)]
    points: list[Any] = [(), [(40, 30), (42, 32)], ()]
    return {
        name: segmenter.identify(image, mask, at)
        for name, (image, mask), at in zip(("walker", "ball", "cup"), shots, points, strict=True)
    }


def same(one: Segmentation, other: Segmentation) -> bool:
    return np.array_equal(one.mask, other.mask) and bool(np.isclose(one.score, other.score, atol=1e-5))


def test_each_object_is_what_it_is_alone(segmenter: Segmenter) -> None:
    """To float32 rounding in the networks, which see another batch."""
    targets = made(segmenter)
    found = segmenter.segment(FRAMES[0], targets)
    assert isinstance(found, Objects)
    assert found.names == ("walker", "ball", "cup")
    for name, target in targets.items():
        alone = segmenter.segment(FRAMES[0], target)
        assert np.mean(found[name].mask != alone.mask) < 0.002
        assert found[name].score == pytest.approx(alone.score, abs=1e-4)
    assert len({found[name].score for name in found.names}) == 3
    assert found.timings["total"] == pytest.approx(3 * found["walker"].timings["total"])


def test_a_batch_is_its_frames(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samg_fast.segmenter._FRAMES_A_THREAD", 7)  # two frames of three objects at once, then one
    targets = made(segmenter)
    batch = segmenter.segment_batch(FRAMES, targets)
    assert len(batch) == len(FRAMES)
    for frame, found in zip(FRAMES, batch, strict=True):
        np.testing.assert_array_equal(found.frame, frame)
        alone = segmenter.segment(frame, targets)
        for name in targets:
            assert np.mean(found[name].mask != alone[name].mask) < 0.002
            assert found[name].score == pytest.approx(alone[name].score, abs=1e-4)


def test_a_trace_of_each(one_segmenter: Segmenter) -> None:
    found = one_segmenter.segment(FRAMES[0], made(one_segmenter), trace=True)
    traces = [found[name].trace for name in found.names]
    assert [len(trace.similarity) for trace in traces if trace is not None] == [1, 3, 1]


def test_a_bundle_for_a_fixed_batch(bundle_folder: Path, tmp_path: Path) -> None:
    """It is given each frame once for each object."""
    fixed = fixed_batch(Bundle.open(bundle_folder), tmp_path / "two", 2)
    with samg_fast.load(fixed.path, backend="onnxruntime", threads=1) as segmenter:
        targets = made(segmenter)
        found = segmenter.segment_batch(FRAMES, targets)
        for frame, each in zip(FRAMES, found, strict=True):
            assert all(same(each[name], segmenter.segment(frame, target)) for name, target in targets.items())
        assert segmenter.segment(FRAMES[0], targets, trace=True)["ball"].trace is not None


def segmentation(mask: Any, score: float, threshold: float | None = None) -> Segmentation:
    full = np.array(mask, bool)
    box = (0, 0, 1, 1) if full.any() else None
    frame = np.full((*full.shape, 3), 7, np.uint8)
    return Segmentation(frame=frame, mask=full, score=score, box=box, timings={}, threshold=threshold)


def test_ids_go_to_the_better_score() -> None:
    found = {
        "a": segmentation([[1, 1, 0, 0]], 0.8),
        "b": segmentation([[0, 1, 1, 0]], 0.9),
        "empty": segmentation([[0, 0, 0, 0]], 0.99),
        "absent": segmentation([[1, 1, 1, 1]], 0.2, threshold=0.5),
    }
    objects = Objects(frame=found["a"].frame, found=found)
    assert objects.ids.tolist() == [[1, 2, 2, 0]]
    assert objects.mask.tolist() == [[True, True, True, False]]
    assert objects.masked[..., 0].tolist() == [[7, 7, 7, 0]]


def test_bad_objects(one_segmenter: Segmenter, tmp_path: Path) -> None:
    targets = made(one_segmenter)
    with pytest.raises(InputError, match="target must name 1 to 255 objects, not 0"):
        one_segmenter.segment(FRAMES[0], {})
    with pytest.raises(InputTypeError, match="target must be named by texts, not by 3"):
        one_segmenter.segment(FRAMES[0], {3: targets["ball"]})  # type: ignore[dict-item]
    with pytest.raises(InputTypeError, match=r"target\['ball'\] must be a samg_fast.Target, not str"):
        one_segmenter.segment(FRAMES[0], {"ball": "ball"})  # type: ignore[dict-item]
    write_bundle(tmp_path, shared=True)
    with samg_fast.load(tmp_path, backend="onnxruntime", threads=1) as other:
        both = {**targets, "other": made(other)["ball"]}
    with pytest.raises(BundleError, match=r"target\['other'\] was made with bundle synthetic-shared"):
        one_segmenter.segment_batch(FRAMES, both)


def test_a_fitted_bundle_has_one(one_segmenter: Segmenter, tmp_path: Path) -> None:
    with (
        samg_fast.load(write_fitted_bundle(tmp_path), backend="onnxruntime", threads=1) as fitted,
        pytest.raises(BundleError, match="is fitted to"),
    ):
        fitted.segment(FRAMES[0], made(one_segmenter))
