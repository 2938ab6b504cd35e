"""What the wrappers of a single environment share, in dm_env and in gymnasium."""

from __future__ import annotations

import pytest

pytest.importorskip("dm_env", reason="dm_env is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")

from typing import Any

import numpy as np

from samg_fast.wrappers.dm_env import MaskedPixels
from samg_fast.wrappers.gymnasium import MaskedObservation
from support.pixel_envs import RED, ColourFinder, SquaresDm, SquaresGym, is_colour, squares, target_of

ACTION = np.zeros(1, np.float32)

both = pytest.mark.parametrize(
    ("wrapper", "environment"),
    [(MaskedPixels, SquaresDm), (MaskedObservation, SquaresGym)],
    ids=["dm_env", "gymnasium"],
)


@both
def test_segmentation_and_target_can_be_read(wrapper: Any, environment: Any) -> None:
    finder = ColourFinder([0.7, 0.8, 0.9])
    env = wrapper(environment(), finder, reference=(squares(0), is_colour(squares(0), RED)))
    assert (env.segmentation, env.target, finder.identified) == (None, None, [])
    env.reset()
    assert env.segmentation.score == 0.7
    assert env.target.bundle == "colours"
    env.step(ACTION)
    env.reset()
    assert env.segmentation.score == 0.9
    assert len(finder.identified) == 1


@both
@pytest.mark.parametrize("where", ["environment", "segmenter"])
def test_after_an_error_the_environment_can_be_closed(wrapper: Any, environment: Any, where: str) -> None:
    inside = environment()
    env = wrapper(inside, ColourFinder(iter([0.9])), target_of(RED))
    env.reset()
    if where == "environment":
        inside._t = "broken"
    with pytest.raises((TypeError, StopIteration)):
        env.step(ACTION)
    env.close()
    assert inside.closed == 1
