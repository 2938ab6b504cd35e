"""Masks from clicks, boxes and earlier masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.metrics import iou
from samg_fast.ops import reference
from samg_fast.ops.geometry import Letterbox
from samg_fast.samples import load_pack
from samg_fast.segmenter import Segmenter
from support.synthetic_bundle import picture, write_bundle, write_fitted_bundle

HEIGHT, WIDTH = 60, 84
IMAGE, MASK = picture(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder, shared=True)
    with samg_fast.load(folder, backend="onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny() -> Iterator[Segmenter]:
    with samg_fast.load("tiny", backend="onnxruntime", threads=1) as opened:
        yield opened


def decoded(segmenter: Segmenter, points: Any, labels: Any, mask_input: Any = None) -> tuple[Any, Any]:
    """Run the two networks by hand on points whose slots are all given, corners of a box included."""
    spec = segmenter.bundle.prompted
    networks = segmenter._networks.opened
    image = reference.preprocess(IMAGE[None], spec.encoder)
    embedding = networks["encoder"](image=image)[spec.encoder.output].copy()
    box, side = Letterbox(HEIGHT, WIDTH, spec.prompt_side), 4 * spec.encoder.grid
    coords = np.zeros((1, spec.slots, 2), np.float32)
    kinds = np.full((1, spec.slots), -2, np.float32)
    coords[0, : len(points)] = np.array(points) * (box.scale_x, box.scale_y)
    kinds[0, : len(labels)] = labels
    outputs = networks["decoder"](
        embedding=embedding, point_coords=coords, point_labels=kinds,
        mask_input=np.zeros((1, 1, side, side), np.float32) if mask_input is None else mask_input[None, None],
        has_mask_input=np.full(1, mask_input is not None, np.float32),
        target=np.zeros((1, spec.encoder.channels), np.float32),
    )  # fmt: skip
    return outputs["low_res_masks"][0, 1:].copy(), outputs["iou"][0, 1:].copy()


def test_a_click_is_the_decoders_own_prompt(segmenter: Segmenter) -> None:
    """Slots: the click, then SAM's empty point (-1) in place of a box."""
    logits, scores = decoded(segmenter, [(40, 30), (0, 0)], [1, -1])
    found = segmenter.propose(IMAGE, [(40.9, 30.2)])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)  # the preprocessing kernel's rounding
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-5)
    assert found.masks.shape == (3, HEIGHT, WIDTH)
    assert found.chosen == int(np.argmax(scores))
    np.testing.assert_array_equal(found.best, found.masks[found.chosen])


def test_a_box_is_two_corners(segmenter: Segmenter) -> None:
    logits, _ = decoded(segmenter, [(20, 10), (60, 50)], [2, 3])
    np.testing.assert_allclose(segmenter.propose(IMAGE, box=(20, 10, 60, 50)).logits, logits, rtol=1e-4, atol=1e-4)


def test_clicks_come_one_after_the_other(segmenter: Segmenter) -> None:
    """The second decode gets both clicks, and the best mask of the first one."""
    logits, scores = decoded(segmenter, [(40, 30), (0, 0)], [1, -1])
    logits, _ = decoded(segmenter, [(40, 30), (5, 6), (0, 0)], [1, 0, -1], logits[np.argmax(scores)])
    found = segmenter.propose(IMAGE, [(40, 30), (5, 6)], [1, 0])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-3, atol=1e-3)  # two decodes


def test_an_earlier_mask_alone(segmenter: Segmenter) -> None:
    """Of an image that fills the prompts' square, a pixel for each of the decoder's."""
    side = 4 * segmenter.bundle.prompted.encoder.grid
    image, mask = picture(side, side)
    first = segmenter.propose(image, mask=mask)
    other = segmenter.propose(image, mask=~mask)
    assert not np.array_equal(first.logits, other.logits)


@pytest.mark.parametrize(("setting", "least"), [("click", 0.75), ("box", 0.85), ("clicks", 0.85)])
def test_on_tiny(tiny: Segmenter, setting: str, least: float) -> None:
    """Measured are 0.81, 0.92 and 0.95; the mask of the whole image has 0.08."""
    walker = load_pack().tasks["walker_walk"]
    rows, columns = np.nonzero(walker.reference_mask)
    given: dict[str, Any] = {
        "click": {"points": [(40, 50)]},
        "box": {"box": (columns.min(), rows.min(), columns.max(), rows.max())},
        "clicks": {"points": [(40, 50), (5, 5)], "labels": [1, 0]},
    }[setting]
    found = tiny.propose(walker.reference, **given)
    assert iou(found.best, walker.reference_mask) > least
    target = tiny.identify(walker.reference, **given)
    np.testing.assert_array_equal(target.sam, tiny.identify(walker.reference, found.best).sam)
    frames, masks = walker.settings["original"]
    assert iou(tiny.segment(frames[0], target).mask, masks[0]) > least


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "points, box and mask are all left out"),
        ({"points": [(WIDTH, 3)]}, rf"points has \({WIDTH}, 3\), which is not a point of the picture"),
        ({"points": [(3, 3)], "labels": [1, 0]}, "labels must be 1, one for each point, not of shape"),
        ({"points": [(3, 3)], "labels": [2]}, r"labels must be 1 \(on the target\) or 0"),
        ({"points": [(1, 1)] * 99}, "points are 99, but the decoder takes"),
        ({"box": (3, 3, 3, 9)}, "box has no area"),
        ({"box": (9, 3, 3, 9)}, "box has no area"),
        ({"box": (1, 2, 3)}, "box must be four numbers"),
        ({"box": (1, 2, 3, HEIGHT)}, "box has .* not a point of the picture"),
        ({"mask": np.zeros((HEIGHT, WIDTH), bool)}, "mask is empty"),
        ({"mask": np.ones((3, 3), bool)}, "mask must have the picture's size"),
    ],
)
def test_bad_prompts(segmenter: Segmenter, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        segmenter.propose(IMAGE, **given)


def test_labels_of_another_kind(segmenter: Segmenter) -> None:
    with pytest.raises(InputTypeError, match=r"labels must be 1 \(on the target\) or 0 \(not on it\), not float64"):
        segmenter.propose(IMAGE, [(3, 3)], [0.5])


def test_identify_without_a_mask(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="mask, points and box are all left out"):
        segmenter.identify(IMAGE)
    with pytest.raises(InputError, match="mask must be given where image is several pictures"):
        segmenter.identify([IMAGE, IMAGE], points=[(3, 3)])
    with pytest.raises(InputError, match="labels and box say where the target is without a mask, and mask is given"):
        segmenter.identify(IMAGE, MASK, box=(1, 1, 5, 5))
    found = segmenter.propose(IMAGE, [(3, 3)])
    nothing = replace(found, masks=np.zeros_like(found.masks))
    monkeypatch.setattr(Segmenter, "propose", lambda *_: nothing)
    with pytest.raises(InputError, match="nothing is found there: add clicks"):
        segmenter.identify(IMAGE, points=[(3, 3)])


def test_a_fitted_bundle_takes_no_prompts(tmp_path: Path) -> None:
    with (
        samg_fast.load(write_fitted_bundle(tmp_path), backend="onnxruntime", threads=1) as fitted,
        pytest.raises(BundleError, match="is fitted to"),
    ):
        fitted.propose(IMAGE, [(3, 3)])
