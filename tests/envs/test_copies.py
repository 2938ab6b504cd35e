"""Environments that are copied, pickled or made in several processes, and their seeds."""

from __future__ import annotations

import pytest

pytest.importorskip("dm_control", reason="dm_control is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from gymnasium.vector import SyncVectorEnv

from samg_fast.envs import make
from samg_fast.envs.dmc import LiveTask, reference
from samg_fast.envs.rendering import SceneRenderer
from samg_fast.errors import InputError, InputTypeError
from support.clips import Flat, write_video
from support.rendering import needs_rendering

pytestmark = needs_rendering

TRANSFERS = [
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda env: pickle.loads(pickle.dumps(env)), id="pickle"),
    pytest.param(lambda env: cloudpickle.loads(cloudpickle.dumps(env)), id="cloudpickle"),
]


def check_same_future(env: Any, other: Any) -> None:
    """Check that two gymnasium environments show the same, now and in what follows, and then close them in turn."""
    actions = np.random.default_rng(1).uniform(-0.5, 0.5, (4, *env.action_space.shape))
    np.testing.assert_array_equal(other.render(), env.render())
    np.testing.assert_array_equal(other.scene.mask, env.scene.mask)
    for action in actions:
        one, same = env.step(action), other.step(action)
        np.testing.assert_array_equal(one[0], same[0])
        assert one[1:4] == same[1:4]
        np.testing.assert_array_equal(one[4]["mask"], same[4]["mask"])
    np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
    env.close()
    other.step(actions[0])  # it shares nothing with what is closed
    other.close()


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize(
    ("task", "setting", "frames"),
    [
        ("walker_walk", "original", None),
        ("pendulum_swingup", "video_hard", 3),
        ("quadruped_escape", "color_hard", None),
        ("adroit_door", "color_hard", None),
    ],
)
def test_a_copy_goes_on_as_the_environment_would(
    task: str, setting: str, frames: int | None, transfer: Callable[[Any], Any]
) -> None:
    if task.startswith("adroit"):
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    env = make(task, setting=setting, size=24, seed=3, frame_stack=frames, ground_truth=True)
    env.reset()
    for _ in range(2):
        env.step(np.full(env.action_space.shape, 0.3))
    check_same_future(env, transfer(env))


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_dm_env_copy_goes_on_too(transfer: Callable[[Any], Any]) -> None:
    env = make("walker_walk", setting="video_easy", size=24, seed=3, api="dm_env")
    env.reset()
    other = transfer(env)
    assert other.physics is not env.physics
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 6)):
        one, same = env.step(action), other.step(action)
        np.testing.assert_array_equal(one.observation["pixels"], same.observation["pixels"])
        assert one.reward == same.reward
    env.close()
    other.close()


@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_before_the_first_image_and_one_of_a_task_that_acts_by_itself(steps: int) -> None:
    with LiveTask("walker_walk", "video_hard", 24, seed=4) as live:
        live.reset() if steps else None
        live.skip(steps)
        with copy.deepcopy(live) as other:
            for _ in range(3):
                np.testing.assert_array_equal(live.step(), other.step())


def test_a_copy_s_step_leaves_the_environment_where_it_was() -> None:
    env = make("walker_walk", size=24, seed=0, frame_stack=None)
    env.reset()
    before = env.scene.simulation.data.qpos.copy()
    other = copy.deepcopy(env)
    for _ in range(3):
        other.step(np.ones(6))
    np.testing.assert_array_equal(env.scene.simulation.data.qpos, before)
    assert env.scene.rendered.rgb.shape == (24, 24, 3)
    other.close()
    env.close()


@pytest.mark.parametrize("kind", ["folder", "clips"])
def test_given_clips_go_on_and_are_shared_by_copies(kind: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [10, 60, 110, 160, 210])
    clips: Any = tmp_path if kind == "folder" else [Flat("red", (200, 0, 0)), Flat("blue", (0, 0, 200))]
    env = make("pendulum_swingup", setting="video_hard", size=16, clips=clips, ground_truth=True, seed=1)
    env.reset()
    env.step([0.0])
    other = copy.deepcopy(env)
    assert other.scene._clips is env.scene._clips
    assert other.scene.clip_name == env.scene.clip_name
    again = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(again.step([0.1])[0], env.step([0.1])[0])
    again.close()
    other.step([0.1])
    check_same_future(env, other)


def test_a_renderer_says_that_it_cannot_be_copied() -> None:
    with LiveTask("walker_walk", size=16) as live:
        renderer = SceneRenderer(live.simulation.model, (16, 16))
        for transfer in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(InputTypeError, match="cannot be copied or pickled"):
                transfer(renderer)
        renderer.close()


def test_a_copy_of_a_closed_environment_is_closed() -> None:
    env = make("pendulum_swingup", size=16, setting="color_easy")
    env.reset()
    env.close()
    copy.deepcopy(env).close()


def test_environments_without_a_seed_differ() -> None:
    for made in (lambda: make("walker_walk", size=16), lambda: make("walker_walk", size=16, seed=None)):
        env = SyncVectorEnv([made] * 3)
        first, second, third = env.reset()[0]
        env.close()
        assert (first != second).any()
        assert (second != third).any()
    env = make("walker_walk", size=16)
    shown = env.reset()[0]
    np.testing.assert_array_equal(shown, env.reset(seed=env.scene.seed)[0])  # it says which seed it drew
    env.close()


def test_environments_of_dm_env_without_a_seed_differ() -> None:
    one, other = (make("walker_walk", size=16, api="dm_env", frame_stack=None) for _ in range(2))
    assert (one.reset().observation["pixels"] != other.reset().observation["pixels"]).any()
    one.close()
    other.close()


@pytest.mark.parametrize("task", ["walker_walk", "lqr_lqr_2_1", "adroit_door"])
@pytest.mark.parametrize("seed", [2**32, 2**32 + 1, 2**70])
def test_seeds_may_be_as_large_as_gymnasium_s(task: str, seed: int) -> None:
    if task.startswith("adroit"):
        pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    env = make(task, setting="video_hard", size=16, frame_stack=None, seed=0)
    shown = [env.reset(seed=each)[0] for each in (seed, seed % 2**32, seed)]
    np.testing.assert_array_equal(shown[0], shown[2])
    assert (shown[0] != shown[1]).any()
    env.close()


def test_seeds_of_episodes_may_be_numpy_s_integers() -> None:
    env = make("walker_walk", setting="video_hard", size=16, frame_stack=None, seed=0)
    shown = [env.reset(seed=seed)[0] for seed in (7, np.int64(7), np.uint64(2**40), 2**40)]
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[2], shown[3])
    with pytest.raises(InputTypeError, match="seed must be"):
        env.reset(seed=0.5)
    env.close()


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, InputError), (0.5, InputTypeError), ("a", InputTypeError), (True, InputTypeError)]
)
def test_other_seeds_get_a_sentence(seed: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed must be"):
        make("walker_walk", seed=seed)


def test_a_reference_is_the_same_unless_it_is_asked_not_to_be() -> None:
    same = [reference("walker_walk", 16)[0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (reference("walker_walk", 16, seed=None)[0] != same[0]).any()


@pytest.mark.parametrize("argument", ["clips", "colors"])
def test_an_array_in_place_of_clips_or_colours_is_not_printed(argument: str) -> None:
    given: Any = {argument: np.zeros((200, 84, 84, 3), np.uint8)}
    with pytest.raises(InputTypeError, match=r"not uint8 of shape \(200, 84, 84, 3\)$"):
        make("walker_walk", setting="video_hard" if argument == "clips" else "color_hard", **given)


def test_the_success_of_a_hand_has_a_dtype_from_the_start() -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    env = make("adroit_door", size=16)
    infos = [env.reset(seed=0)[1], env.step(np.zeros(env.action_space.shape))[-1]]
    assert [(type(info["success"]), bool(info["success"])) for info in infos] == [(np.bool_, False)] * 2
    env.close()


def test_an_environment_is_spawned_with_its_state(tmp_path: Path) -> None:
    env = make("walker_walk", size=24, seed=2)
    env.reset()
    (tmp_path / "env").write_bytes(pickle.dumps(env))
    program = "import pickle, sys; env = pickle.load(open(sys.argv[1], 'rb')); print(env.step([0.1] * 6)[0].sum())"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "env")], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) == env.step([0.1] * 6)[0].sum()
    env.close()
