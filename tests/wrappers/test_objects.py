"""Several named objects in the wrappers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("dm_env", reason="dm_env is not installed")

import numpy as np
from gymnasium.vector import SyncVectorEnv

from samg_fast import Objects
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.wrappers import dm_env, gymnasium, vector
from samg_fast.wrappers.masking import Masking
from support.pixel_envs import (
    BLUE,
    GREEN,
    RED,
    SIZE,
    ColourFinder,
    SquaresDm,
    SquaresGym,
    is_colour,
    squares,
    target_of,
)

TARGETS = {"red": target_of(RED), "blue": target_of(BLUE)}
FRAME = squares(3)


def masking(scores: Any = None, targets: Any = TARGETS, **changed: Any) -> Masking:
    chosen: Any = {"count": 1, "mode": "composite", "threshold": None, "lost": "empty", **changed}
    return Masking(ColourFinder() if scores is None else ColourFinder(scores), targets, None, **chosen)


def test_modes() -> None:
    red, blue = is_colour(FRAME, RED), is_colour(FRAME, BLUE)
    modes: dict[Any, Any] = {mode: masking(mode=mode) for mode in ("composite", "mask", "rgbm", "ids")}
    shown = {mode: each(FRAME[None])[0] for mode, each in modes.items()}
    assert np.array_equal(shown["composite"], FRAME * (red | blue)[..., None])
    assert np.array_equal(shown["mask"], 255 * np.stack([red, blue], axis=-1))
    assert np.array_equal(shown["rgbm"], np.concatenate([FRAME, shown["mask"]], axis=-1))
    assert np.array_equal(shown["ids"][..., 0], red + 2 * blue)
    assert {mode: each.channels for mode, each in modes.items()} == {"composite": 3, "mask": 2, "rgbm": 5, "ids": 1}


def test_an_overlap_goes_to_the_better_score() -> None:
    """Two objects that are the same square."""
    twice = {"one": target_of(RED), "two": target_of(RED)}
    for scores, number in (([0.9, 0.8], 1), ([0.8, 0.9], 2)):
        shown = masking(scores, twice, mode="ids")(FRAME[None])[0, ..., 0]
        assert np.array_equal(shown, number * is_colour(FRAME, RED))


def test_each_is_lost_and_held_by_itself() -> None:
    """Red is lost in the second frame, blue in the third."""
    mask = masking([0.9, 0.9, 0.1, 0.9, 0.9, 0.1], mode="mask", threshold=0.5, lost="hold")
    frames = [squares(t) for t in range(3)]
    shown = [mask(frame[None])[0] > 0 for frame in frames]
    red, blue = ([is_colour(frame, channel) for frame in frames] for channel in (RED, BLUE))
    assert np.array_equal(shown[1], np.stack([red[0], blue[1]], axis=-1))
    assert np.array_equal(shown[2], np.stack([red[2], blue[1]], axis=-1))
    mask.start_episodes()
    assert not mask._last_masks


def test_wrappers_say_how_many_channels_there_are() -> None:
    env = gymnasium.MaskedObservation(SquaresGym(), ColourFinder(), TARGETS, mode="rgbm")
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (SIZE, SIZE, 5)
    assert isinstance(env.segmentation, Objects)
    assert env.segmentation.names == ("red", "blue")
    assert env.target == TARGETS
    other = dm_env.MaskedPixels(SquaresDm(), ColourFinder(), TARGETS, mode="mask")
    assert other.reset().observation["pixels"].shape == other.observation_spec()["pixels"].shape == (SIZE, SIZE, 2)
    inside = SyncVectorEnv([SquaresGym for _ in range(3)])
    several = vector.MaskedObservation(inside, ColourFinder(), TARGETS, mode="ids")
    assert several.reset(seed=0)[0].shape == (3, SIZE, SIZE, 1)
    assert [each.names for each in several.segmentations if isinstance(each, Objects)] == [("red", "blue")] * 3
    assert several.targets == [TARGETS] * 3


def test_objects_are_identified_from_references() -> None:
    reference = {"a": (FRAME, is_colour(FRAME, RED)), "b": (FRAME, is_colour(FRAME, GREEN), [(3, 9)])}
    finder = ColourFinder()
    env = gymnasium.MaskedObservation(SquaresGym(), finder, reference=reference, mode="mask")
    assert env.target is None
    assert env.reset(seed=0)[0].shape == (SIZE, SIZE, 2)
    assert [len(each) for each in finder.identified] == [2, 3]
    assert set(env.target) == {"a", "b"}


def test_what_is_refused() -> None:
    with pytest.raises(BundleError, match=r"target\['other'\] was made with"):
        masking(targets={"other": target_of(RED, "0" * 64)})
    with pytest.raises(InputError, match="target must name 1 to 255 objects"):
        masking(targets={})
    with pytest.raises(InputError, match="reference must name one object at least"):
        gymnasium.MaskedObservation(SquaresGym(), ColourFinder(), reference={})
    with pytest.raises(InputTypeError, match=r"reference must be \(image, mask\)"):
        gymnasium.MaskedObservation(SquaresGym(), ColourFinder(), reference={"a": FRAME})
