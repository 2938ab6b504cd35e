"""Tasks as dm_env environments: specs, time steps, stacks, and every task there is."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from samg_fast.envs import ADROIT, SETTINGS, TASKS, make, stack
from samg_fast.envs.scene import Scene
from samg_fast.errors import InputError, MissingExtraError, SamgError
from support.rendering import needs_rendering

pytest.importorskip("dm_env", reason="dm_env is not installed")

from dm_env import test_utils

pytestmark = needs_rendering


def open_one(task: str = "pendulum_swingup", **arguments: Any) -> Any:
    return make(task, **{"size": 16, "api": "dm_env", **arguments})


class TestPixelTask(test_utils.EnvironmentTestMixin, unittest.TestCase):  # type: ignore[misc]
    """dm_env's own checks, over the end of an episode."""

    def make_object_under_test(self) -> Any:
        return open_one(frame_stack=None, action_repeat=400, ground_truth=True)

    def make_action_sequence(self) -> Iterator[Any]:
        for _ in range(5):
            yield self.make_action()


class TestStack(test_utils.EnvironmentTestMixin, unittest.TestCase):  # type: ignore[misc]
    """dm_env's own checks, of a stack."""

    def make_object_under_test(self) -> Any:
        return open_one(setting="video_hard", action_repeat=400)

    def make_action_sequence(self) -> Iterator[Any]:
        for _ in range(5):
            yield self.make_action()


# The first task of every domain, each in one of the settings: settings do not depend on the task, and the other tasks
# of a domain look the same.
FIRST = {task.domain: name for name, task in reversed(TASKS.items()) if name not in ADROIT}


def slow(name: str) -> list[Any]:
    return [pytest.mark.slow] if name.startswith("dog") else []


@pytest.mark.parametrize(
    ("name", "setting"),
    [pytest.param(name, SETTINGS[index % 5], marks=slow(name)) for index, name in enumerate(FIRST.values())],
)
def test_every_domain_renders(name: str, setting: str) -> None:
    env = open_one(name, setting=setting, size=8, frame_stack=None, ground_truth=True)
    env.reset()
    step = env.step(np.zeros(env.action_spec().shape))
    assert np.isfinite(step.reward)
    for key, spec in env.observation_spec().items():
        spec.validate(step.observation[key])
    env.close()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow(name)) for name in TASKS if name not in (*ADROIT, *FIRST.values())]
)
def test_every_other_task_runs(name: str) -> None:
    scene = Scene(name, size=8)
    scene.begin()
    assert np.isfinite(scene.advance(np.zeros(scene.simulation.action_spec.shape)).reward)
    scene.close()


def test_the_time_limit_keeps_the_discount() -> None:
    env = open_one("cartpole_balance", action_repeat=600)
    steps = [env.reset(), *(env.step([0.0]) for _ in range(3))]
    assert [step.step_type.name for step in steps] == ["FIRST", "MID", "LAST", "FIRST"]
    assert (steps[1].discount, steps[2].discount) == (1.0, 1.0)
    env.close()


def test_termination_sets_the_discount_to_zero() -> None:
    env = open_one("lqr_lqr_2_1")
    env.reset()
    physics = env.scene.environment.physics
    with physics.reset_context():
        physics.data.qpos[:] = physics.data.qvel[:] = 0.0  # where the task wants to be
    step = env.step([0.0])
    assert (step.last(), step.discount) == (True, 0.0)
    env.close()


def test_steps_are_the_same_as_in_gymnasium() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    arguments: dict[str, Any] = {"setting": "video_hard", "seed": 3, "ground_truth": True, "size": 16}
    ours, theirs = open_one(**arguments), make("pendulum_swingup", **arguments)
    step, (observation, info) = ours.reset(), theirs.reset()
    for action in ([0.5], [-0.5]):
        np.testing.assert_array_equal(step.observation["pixels"], observation)
        np.testing.assert_array_equal(step.observation["mask"], info["mask"])
        step, (observation, reward, *_, info) = ours.step(action), theirs.step(action)
        assert step.reward == reward
    ours.close()
    theirs.close()


def test_physics_and_the_latest_frame_are_available() -> None:
    env = open_one(size=(16, 24))
    with pytest.raises(SamgError, match=r"call reset\(\) first"):
        env.render()
    env.reset()
    step = env.step([1.0])
    assert env.physics.data.ptr is env.scene.simulation.data
    assert env.render().shape == (16, 24, 3)
    np.testing.assert_array_equal(env.render().transpose(2, 0, 1), step.observation["pixels"][6:])
    env.close()


def test_a_stack_changes_only_the_images() -> None:
    env = open_one(frame_stack=None, ground_truth=True, size=(16, 24))
    stacked = stack(env, 2)
    spec = stacked.observation_spec()
    assert (spec["pixels"].shape, spec["mask"].shape) == ((6, 16, 24), (16, 24))
    assert stacked.action_spec() == env.action_spec()
    assert stacked.scene is env.scene
    first, second = stacked.reset(), stacked.step([1.0])
    assert second.observation["pixels"].flags.c_contiguous
    np.testing.assert_array_equal(first.observation["pixels"][:3], second.observation["pixels"][:3])
    np.testing.assert_array_equal(second.observation["mask"], env.scene.mask)
    np.testing.assert_array_equal(second.observation["pixels"][3:], env.scene.clean.transpose(2, 0, 1))
    with pytest.raises(AttributeError, match="nothing"):
        _ = stacked.nothing
    stacked.close()


def test_missing_images_are_named() -> None:
    env = open_one(frame_stack=None, ground_truth=True)
    with pytest.raises(InputError, match="there is no observation 'image', there are pixels, mask"):
        stack(env, 3, pixels_key="image")
    with pytest.raises(InputError, match=r"mask must be \(H, W, C\) uint8 pictures to be stacked"):
        stack(env, 3, pixels_key="mask")
    env.close()


def test_a_bad_action_is_refused_before_the_first_step_too() -> None:
    env = open_one()
    with pytest.raises(InputError, match=r"shape \(2,\), this task takes \(1,\)"):
        env.step([0.0, 0.0])
    assert env.step([0.0]).first()
    env.close()
    with pytest.raises(SamgError, match="pendulum_swingup is closed"):
        env.reset()


def test_a_missing_package_is_named_and_dm_env_needs_no_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "samg_fast.envs.gymnasium", raising=False)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'samg-fast\[gymnasium\]'"):
        make("walker_walk")
    with pytest.raises(MissingExtraError, match=r"an Adroit task needs .*pip install 'samg-fast\[adroit\]'"):
        open_one("adroit_pen")
    open_one().close()
