"""Backgrounds of the wrappers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("dm_env", reason="dm_env is not installed")

import numpy as np
from gymnasium.vector import SyncVectorEnv

from samg_fast.errors import FileError, InputError
from samg_fast.media import write_image
from samg_fast.wrappers import dm_env, gymnasium, vector
from support.pixel_envs import RED, SIZE, ColourFinder, SquaresDm, SquaresGym, is_colour, target_of

ACTION = np.zeros(1, np.float32)


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Return a folder with ten pictures, each of one shade."""
    for shade in range(10, 110, 10):
        write_image(tmp_path / f"{shade:03d}.png", np.full((8, 8, 3), shade, np.uint8))
    return tmp_path


def shade(observation: Any) -> int:
    """Return the shade behind the target, which fills all but it."""
    rest = observation[~is_colour(observation, RED)]
    assert (rest == rest[0]).all()
    return int(rest[0, 0])


def masked(background: Any, **options: Any) -> Any:
    return gymnasium.MaskedObservation(SquaresGym(), ColourFinder(), target_of(RED), background=background, **options)


def test_one_is_drawn_for_each_episode_by_its_seed(shades: Path) -> None:
    env = masked(shades)
    first, _ = env.reset(seed=3)
    assert {shade(env.step(ACTION)[0]) for _ in range(2)} == {shade(first)}
    episodes = [shade(env.reset()[0]) for _ in range(12)]
    assert len(set(episodes)) > 3
    assert shade(env.reset(seed=3)[0]) == shade(first)
    assert [shade(env.reset()[0]) for _ in range(12)] == episodes


def test_a_colour_and_the_target(shades: Path) -> None:
    observation, _ = masked("#0a141e").reset(seed=0)
    red = is_colour(observation, RED)
    assert red.sum() == 16
    assert (observation[~red] == (10, 20, 30)).all()


def test_environments_that_step_together_have_their_own(shades: Path) -> None:
    inside = SyncVectorEnv([SquaresGym for _ in range(6)])
    env = vector.MaskedObservation(inside, ColourFinder(), target_of(RED), background=shades)
    observation, _ = env.reset(seed=4)
    drawn = [shade(each) for each in observation]
    assert len(set(drawn)) > 2
    assert [shade(each) for each in env.step(np.zeros((6, 1), np.float32))[0]] == drawn
    assert [shade(each) for each in env.reset(seed=4)[0]] == drawn


def test_dm_env_takes_a_seed_of_its_own(shades: Path) -> None:
    def drawn(seed: int | None) -> list[int]:
        env = dm_env.MaskedPixels(SquaresDm(), ColourFinder(), target_of(RED), background=shades, background_seed=seed)
        return [shade(env.reset().observation["pixels"]) for _ in range(8)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)  # once in 10⁸ runs they are equal


def test_a_copied_environment_draws_on_its_own(shades: Path) -> None:
    env = masked(shades)
    env.reset(seed=1)
    other = copy.deepcopy(env)
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])


def test_what_is_refused(shades: Path) -> None:
    with pytest.raises(InputError, match="mode 'rgbm' has none"):
        masked("blur", mode="rgbm")
    with pytest.raises(FileError, match="no such file"):
        masked(shades / "none.png")
    assert masked("noise").observation_space.shape == (SIZE, SIZE, 3)
