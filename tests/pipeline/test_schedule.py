"""What each decode gets, against the official code's frames, and against the slow walk on the host and on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast import _engine, ops
from samg_fast.pipeline.schedule import SCHEDULE, point_rows, point_slots, searched_box
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target
from support import fake_cuda
from support.golden_frames import GOLDEN, TASKS
from support.host_gpu import HostBackend, open_on
from support.slow_walk import SlowWalk
from support.synthetic_bundle import picture

LOGITS = 2e-4
"""Networks round differently on different backends; the logits here are of order 1 to 10."""


def targets_of(segmenter: Segmenter) -> list[Target]:
    """Targets of no, one and two parts."""
    image, mask = picture(60, 80)
    return [segmenter.identify(image, mask, points=[(40, 30), (35, 25)][:parts]) for parts in range(3)]


@pytest.mark.parametrize("task", TASKS)
def test_official_points_and_labels(task: str) -> None:
    """From the official similarity maps and boxes come the official code's points, in its order."""
    with np.load(GOLDEN / f"samg_l0_dinov2_vits14_{task}.npz") as golden:
        for name in sorted({each.split(".")[1] for each in golden.files if each.startswith("frame.")}):
            frame = {each.removeprefix(f"frame.{name}."): golden[each] for each in golden.files if f".{name}." in each}
            maps = len(frame["decode0.labels"]) - 1
            values = np.stack([frame[f"similarity{call}.map"] for call in (0, *range(2, 1 + maps))])
            rows, points = point_rows(1, maps), np.zeros((maps + 2, 2), np.int32)
            points[rows.max] = ops.topk_points(values, 1, True)[:, 0]
            points[rows.min] = ops.topk_points(values[0], 1, False, searched_box(*values.shape[1:]))
            for turn, (rule, slots) in enumerate(zip(SCHEDULE, point_slots((maps - 1,)), strict=True)):
                box = frame.get(f"decode{turn}.box")
                assert rule.refines == (box is not None)
                if rule.searches_box:
                    points[rows.min_in_box] = ops.topk_points(values[:1], 1, False, box.astype(np.int32))[0]
                assert points[slots.order[0]].tolist() == frame[f"decode{turn}.points_xy"].tolist()
                assert slots.labels[0].tolist() == frame[f"decode{turn}.labels"].tolist()
            assert turn + 1 == frame["n_decodes"]


def test_targets_with_different_numbers_of_parts() -> None:
    """Slots of parts that a target lacks are empty, behind its points."""
    # Rows: the target and two parts of each frame, least similar of each, least similar in the box of each
    first, second, third = point_slots((2, 0))
    assert first.order.tolist() == [[0, 6, 1, 2], [3, 7, -1, -1]]
    assert first.labels.tolist() == [[1, 0, 1, 1], [1, 0, 0, 0]]
    assert second.order.tolist() == [[0, 6, 1, 2, 8], [3, 7, 9, -1, -1]]
    assert third.order.tolist() == [[0, 6, 1, 2, 8, 6], [3, 7, 9, 7, -1, -1]]
    assert third.labels.tolist() == [[1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]]


def test_slots_are_made_once() -> None:
    slots = point_slots((1, 1))
    assert point_slots((1, 1)) is slots
    assert not any(array.flags.writeable for each in slots for array in each)


class Recording:
    """Keeps what the decoder is fed: in place of a network of the processor, or of an ONNX Runtime session."""

    def __init__(self, runs: Any) -> None:
        self.runs = runs
        self.fed: list[dict[str, Any]] = []

    def __call__(self, **inputs: Any) -> Any:
        self.fed.append({name: array.copy() for name, array in inputs.items()})
        return self.runs(**inputs)

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        self.fed.append({name: array.copy() for name, array in inputs.items()})
        return self.runs.run(outputs, inputs)


def host_decoder(folder: Path) -> tuple[Segmenter, Recording]:
    segmenter = samg_fast.load(folder, backend="onnxruntime", threads=1, device="cpu")
    networks = segmenter._networks
    decoder = Recording(networks.opened["decoder"])
    assert networks._open is not None
    networks._open = {**networks._open, "decoder": decoder}
    return segmenter, decoder


def gpu_decoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Segmenter, Recording]:
    backend = HostBackend(fake_cuda.install(monkeypatch, _engine, launch=1))
    segmenter = open_on(folder, backend)
    decoder = Recording(backend.opened[-1]._session)
    backend.opened[-1]._session = decoder
    return segmenter, decoder


@pytest.mark.parametrize("place", ["host", "gpu"])
def test_the_decoder_is_fed_what_the_slow_walk_says(
    place: str, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points, labels, box and mask input of every decode, one frame at a time and of a batch with different parts."""
    pytest.importorskip("onnxruntime")
    made = host_decoder(bundle_folder) if place == "host" else gpu_decoder(bundle_folder, monkeypatch)
    segmenter, decoder = made
    targets = targets_of(segmenter)
    frames = np.stack([picture(40, 60, seed)[0] for seed in range(3)])
    walk = SlowWalk(bundle_folder)
    wanted = [walk.walk(frame, target).fed for frame, target in zip(frames, targets, strict=True)]
    for frame, target, fed in zip(frames, targets, wanted, strict=True):
        decoder.fed.clear()
        segmenter.segment(frame, target)
        check(decoder.fed, [{name: [each[name][0]] for name in each} for each in fed])
    decoder.fed.clear()
    segmenter.segment_batch(frames, targets)
    check(
        decoder.fed, [{name: [each[turn][name][0] for each in wanted] for name in wanted[0][turn]} for turn in range(3)]
    )


def check(fed: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Compare the inputs of the decodes of a batch; slots that are empty may lie between points and box."""
    assert len(fed) == len(wanted) == len(SCHEDULE)
    for given, expected in zip(fed, wanted, strict=True):
        assert given.keys() == expected.keys()
        for name in ("embedding", "mask_input"):
            np.testing.assert_allclose(given[name], expected[name], atol=LOGITS)
        np.testing.assert_array_equal(given["has_mask_input"], expected["has_mask_input"])
        for index, labels in enumerate(expected["point_labels"]):
            used, filled = given["point_labels"][index] != -2, labels != -2
            np.testing.assert_array_equal(given["point_labels"][index][used], labels[filled])
            coords, places = given["point_coords"][index][used], expected["point_coords"][index][filled]
            np.testing.assert_allclose(coords, places, rtol=1e-6)
