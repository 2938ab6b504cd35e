"""Wrapped environments in other processes: pickled, copied, and made there by closures over a segmenter of this one."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import samg_fast
from samg_fast import Segmenter, Target
from samg_fast.errors import InputTypeError
from samg_fast.wrappers import dm_env as dm
from samg_fast.wrappers.gymnasium import FrameStack, MaskedObservation
from support.pixel_envs import RED, SquaresDm, SquaresGym, is_colour, squares

METHODS = multiprocessing.get_all_start_methods()
LIBRARIES = [
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda env: pickle.loads(pickle.dumps(env)), id="pickle"),
    pytest.param(lambda env: cloudpickle.loads(cloudpickle.dumps(env)), id="cloudpickle"),
]
ACTION = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def opened(bundle_folder: Path) -> Iterator[Segmenter]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with samg_fast.load(bundle_folder, backend="openvino", threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def target(opened: Segmenter) -> Target:
    return opened.identify(squares(0), is_colour(squares(0), RED))


@pytest.mark.parametrize("transfer", LIBRARIES)
@pytest.mark.parametrize("steps", [None, 0, 2])
def test_a_gymnasium_environment_goes_on_as_it_would(
    opened: Segmenter, target: Target, transfer: Callable[[Any], Any], steps: int | None
) -> None:
    """Before its first episode, at its start and inside it."""
    env: Any = FrameStack(MaskedObservation(SquaresGym(), opened, target), 3)
    if steps is None:
        other = transfer(env)
        firsts = [each.reset(seed=3)[0] for each in (env, other)]
    else:
        env.reset(seed=3)
        for _ in range(steps):
            env.step(ACTION)
        other = transfer(env)
        firsts = [each.step(ACTION)[0] for each in (env, other)]
    assert np.array_equal(*firsts)
    assert (other.env._masking._segmenter is opened) is (transfer is copy.deepcopy)
    env.reset(seed=9)  # does not reach the copy
    assert np.array_equal(other.unwrapped.picture, env.unwrapped.picture) is False


@pytest.mark.parametrize("transfer", LIBRARIES)
def test_a_dm_environment_goes_on_as_it_would(
    opened: Segmenter, target: Target, transfer: Callable[[Any], Any]
) -> None:
    env = dm.FrameStack(dm.MaskedPixels(SquaresDm(), opened, target), 2)
    env.reset()
    other = transfer(env)
    assert other._env._env is not env._env._env
    one, same = env.step(ACTION), other.step(ACTION)
    assert np.array_equal(one.observation["pixels"], same.observation["pixels"])


def test_a_factory_survives(opened: Segmenter, target: Target) -> None:
    factory = partial(MaskedObservation, segmenter=opened, target=target)
    for transferred in (copy.deepcopy(factory), pickle.loads(pickle.dumps(factory))):
        transferred(SquaresGym()).reset(seed=0)


@pytest.fixture
def expected(opened: Segmenter, target: Target) -> Any:
    with MaskedObservation(SquaresGym(), opened, target) as env:
        return env.reset(seed=4)[0]


@pytest.mark.parametrize("method", METHODS)
def test_gymnasium_s_workers(opened: Segmenter, target: Target, method: str, expected: Any) -> None:
    made = [lambda: MaskedObservation(SquaresGym(), opened, target)] * 2
    env = AsyncVectorEnv(made, context=method)
    try:
        assert np.array_equal(env.reset(seed=[4, 4])[0], [expected] * 2)
        env.step(np.zeros((2, 1), np.float32))
    finally:
        env.close()


@pytest.mark.parametrize("method", METHODS)
def test_stable_baselines3_s_workers(opened: Segmenter, target: Target, method: str, expected: Any) -> None:
    vectorised = pytest.importorskip("stable_baselines3.common.vec_env", reason="stable-baselines3 is not installed")
    made = [lambda: MaskedObservation(SquaresGym(), opened, target)] * 2
    env = vectorised.SubprocVecEnv(made, start_method=method)
    try:
        env.seed(4)
        assert np.array_equal(env.reset()[0], expected)
    finally:
        env.close()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_torchrl_s_workers(opened: Segmenter, target: Target, method: str) -> None:
    envs = pytest.importorskip("torchrl.envs", reason="torchrl is not installed")

    def make() -> Any:
        return envs.GymWrapper(MaskedObservation(SquaresGym(), opened, target), device="cpu")

    env = envs.ParallelEnv(2, make, mp_start_method=method)
    try:
        assert env.rollout(3)["next", "pixels"].shape[:2] == (2, 3)
    finally:
        env.close()


def test_a_spec_says_why_it_is_no_json(opened: Segmenter, target: Target) -> None:
    gymnasium.register("Squares-v1", SquaresGym, max_episode_steps=50)
    try:
        env: Any = MaskedObservation(gymnasium.make("Squares-v1"), opened, target)
        env = gymnasium.wrappers.TimeLimit(env, 10)
        with pytest.raises(InputTypeError, match=r"spec .* cannot be JSON"):
            env.spec.to_json()
        again = gymnasium.make(pickle.loads(pickle.dumps(env.spec)))
        again.reset(seed=0)
        assert MaskedObservation(SquaresGym(), opened, target).spec is None
    finally:
        gymnasium.registry.pop("Squares-v1")


def test_a_vector_environment_may_be_copied(opened: Segmenter, target: Target) -> None:
    env = samg_fast.wrappers.vector.MaskedObservation(SyncVectorEnv([SquaresGym] * 2), opened, target)
    env.reset(seed=1)
    other = copy.deepcopy(env)
    actions = np.zeros((2, 1), np.float32)
    assert np.array_equal(env.step(actions)[0], other.step(actions)[0])
