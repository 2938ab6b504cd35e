"""Pairs, swaps and parts, measured on segmenters of which it is known whether they look at the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy.frames import TaskFrames
from benchmarks.accuracy.prompting import (
    Prompting,
    domain,
    measure_pairs,
    measure_parts,
    measure_swap,
    paste,
)
from samg_fast.checks import Frame, Mask

RED, GREEN = np.array([200, 0, 0], np.uint8), np.array([0, 200, 0], np.uint8)


class Looks:
    """Finds everything in the colour of the target; or, if it does not look, everything that is not black."""

    def __init__(self, *, at_the_target: bool = True) -> None:
        self.at_the_target = at_the_target

    def identify(self, image: Frame, mask: Mask) -> tuple[Frame, Mask]:
        return image, mask

    def segment(self, frame: Frame, target: tuple[Frame, Mask]) -> Any:
        image, mask = target
        found = (frame == image[mask][0]).all(-1) if self.at_the_target else frame.any(-1)
        return SimpleNamespace(mask=found, score=float(found.any()), present=bool(found.any()))


def task(colour: Frame, *columns: int) -> TaskFrames:
    """Draw a square of 6 × 6 pixels at the columns, and in the middle of the reference."""
    frames, truths = np.zeros((len(columns), 24, 24, 3), np.uint8), np.zeros((len(columns), 24, 24), bool)
    for truth, column in zip(truths, columns, strict=True):
        truth[9:15, column : column + 6] = True
    frames[truths] = colour
    reference, mask = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), bool)
    mask[9:15, 9:15] = True
    reference[mask] = colour
    return TaskFrames(reference, mask, {"original": (frames, truths)})


@pytest.fixture
def tasks() -> dict[str, TaskFrames]:
    return {"walker_walk": task(RED, 0, 9), "cheetah_run": task(GREEN, 3, 12)}


def test_who_looks_finds_the_one_of_two_that_is_wanted(tasks: dict[str, TaskFrames]) -> None:
    looking: Any = Looks()
    pairs = measure_pairs(looking, tasks, "original")
    assert (pairs.nearer, pairs.iou, pairs.masks) == (1.0, 1.0, 8)
    blind: Any = Looks(at_the_target=False)
    pairs = measure_pairs(blind, tasks, "original")
    assert (pairs.nearer, pairs.iou) == (0.0, 0.5)


def test_who_looks_scores_another_s_target_low(tasks: dict[str, TaskFrames]) -> None:
    looking: Any = Looks()
    swap = measure_swap(looking, tasks, "original")
    assert (swap.auc, swap.own, swap.other, swap.kept, swap.refused) == (1.0, 1.0, 0.0, 1.0, 1.0)
    blind: Any = Looks(at_the_target=False)
    swap = measure_swap(blind, tasks, "original")
    assert (swap.auc, swap.own, swap.other, swap.kept, swap.refused) == (0.5, 1.0, 1.0, 1.0, 0.0)


def test_a_part_is_the_upper_half(tasks: dict[str, TaskFrames]) -> None:
    looking: Any = Looks()  # at colours, so it finds the whole
    parts = measure_parts(looking, tasks)
    assert parts.iou == 0.5
    assert parts.each == {"walker_walk": 0.5, "cheetah_run": 0.5}


def test_what_is_pasted_is_whole_and_hides_nothing_where_there_is_room(tasks: dict[str, TaskFrames]) -> None:
    (one, *_), (truth, *_) = tasks["walker_walk"].settings["original"]
    (other, *_), (mask, *_) = tasks["cheetah_run"].settings["original"]
    for seed in range(8):
        both, pasted = paste(one, other, mask, np.random.default_rng(seed), clear_of=truth)
        assert pasted.sum() == mask.sum()
        assert not (pasted & truth).any()
        assert (both[truth] == RED).all()
        assert (both[pasted] == GREEN).all()
    crowded = np.ones_like(truth)
    crowded[:, 14:] = False
    _, pasted = paste(one, other, mask, np.random.default_rng(0), clear_of=crowded)
    assert 0 < pasted.sum() < mask.sum()
    assert not (pasted & crowded).any()


def test_the_table_has_a_row_for_each_figure(tasks: dict[str, TaskFrames]) -> None:
    looking: Any = Looks()
    everything = Prompting(
        {"original": measure_pairs(looking, tasks, "original")},
        {"original": measure_swap(looking, tasks, "original")},
        measure_parts(looking, tasks),
    )
    assert len(everything.markdown().splitlines()) == 2 + 2 + 5 + 1
    assert everything.to_dict()["parts"]["iou"] == 0.5
    assert len(Prompting({}, {}, None).markdown().splitlines()) == 2


def test_tasks_of_one_model_are_of_one_domain() -> None:
    assert domain("walker_walk") == domain("walker_stand") != domain("cheetah_run")
