"""`MaskedObservation` of gymnasium's environments, and what learns on top of it."""

from __future__ import annotations

import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("dm_env", reason="dm_env is not installed")  # pixel_envs speaks both

import copy
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

import samg_fast
from samg_fast.envs import stack
from samg_fast.errors import BundleError, InputError, InputTypeError
from samg_fast.wrappers.gymnasium import MaskedObservation
from support.pixel_envs import RED, SIZE, ColourFinder, SquaresDm, SquaresGym, is_colour, squares, target_of

ACTION = np.zeros(1, np.float32)
MODES = {"composite": 3, "mask": 1, "rgbm": 4}


@pytest.fixture(scope="module")
def registered() -> Iterator[str]:
    """Register the squares, so that gymnasium can build them from a spec."""
    name = "Squares-v0"
    gymnasium.register(name, SquaresGym, max_episode_steps=50)
    yield name
    gymnasium.registry.pop(name)


@pytest.fixture(scope="module")
def tiny() -> Iterator[samg_fast.Segmenter]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with samg_fast.load("tiny", backend="openvino", threads=1) as segmenter:
        yield segmenter


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread: on a busy machine its threads wait for one another at every layer."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(env: gymnasium.Env[Any, Any]) -> None:
    """Run gymnasium's checks with their warnings as errors, except those that every wrapper gets."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        warnings.filterwarnings("ignore", message=".*does not have a spec|.*not having a spec")
        check_env(env)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", [None, "rgb"])
def test_gymnasium_s_checks_pass(mode: Any, key: str | None) -> None:
    check(MaskedObservation(SquaresGym(key=key), ColourFinder(), target_of(RED), pixels_key=key, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_gymnasium_s_checks_pass_for_a_registered_environment(mode: Any, registered: str) -> None:
    inside = gymnasium.make(registered, render_mode="rgb_array")
    reference = squares(0), is_colour(squares(0), RED)
    check(MaskedObservation(inside, ColourFinder(), reference=reference, mode=mode, threshold=0.5, lost="hold"))


def test_the_whole_stack_can_be_built_again_from_its_spec(registered: str) -> None:
    segmenter, target = ColourFinder(), target_of(RED)
    env = MaskedObservation(gymnasium.make(registered), segmenter, target, mode="mask")
    env = gymnasium.wrappers.FrameStackObservation(env, 3)
    again = gymnasium.make(env.spec)
    assert again.observation_space == env.observation_space
    again.reset(seed=0)
    again.step(ACTION)
    assert segmenter.batches == [1, 1]  # the very segmenter, not a copy
    again.close()


@pytest.mark.parametrize(("mode", "channels"), MODES.items())
@pytest.mark.parametrize("key", [None, "rgb"])
def test_only_the_images_change(mode: Any, channels: int, key: str | None) -> None:
    bare, inside = SquaresGym(key=key), SquaresGym(key=key)
    env = MaskedObservation(inside, ColourFinder(), target_of(RED), pixels_key=key, mode=mode)
    outputs = [(bare.reset(seed=3), env.reset(seed=3))]
    outputs += [(bare.step(ACTION), env.step(ACTION)) for _ in range(4)]
    for expected, got in outputs:
        assert got[1:] == expected[1:]
        assert got[0] in env.observation_space
        (frame, image) = (expected[0], got[0]) if key is None else (expected[0][key], got[0][key])
        assert image.shape == (SIZE, SIZE, channels)
        shown = frame * is_colour(frame, RED)[..., None]
        assert np.array_equal(
            image[..., :3] if mode != "mask" else image,
            {"composite": shown, "mask": 255 * is_colour(frame, RED)[..., None], "rgbm": frame}[mode],
        )
        if key is not None:
            assert np.array_equal(got[0]["time"], expected[0]["time"])
    if key is not None:
        assert outputs[-1][1][0]["time"] is inside.time
        assert env.observation_space["time"] is inside.observation_space["time"]
        assert list(env.observation_space) == list(outputs[-1][1][0]) == ["time", key]
    assert np.array_equal(inside.picture, bare.picture)  # the environment's own image is unchanged
    assert inside.observation_space == bare.observation_space


@pytest.mark.parametrize("terminates", [False, True])
def test_truncation_stays_truncation(terminates: bool) -> None:
    env = MaskedObservation(SquaresGym(length=2, terminates=terminates), ColourFinder(), target_of(RED))
    env.reset()
    assert env.step(ACTION)[1:4] == (1.0, False, False)
    assert env.step(ACTION)[1:4] == (2.0, terminates, not terminates)


def test_everything_else_is_forwarded_to_the_environment() -> None:
    inside = SquaresGym(render_mode="rgb_array")
    env = MaskedObservation(inside, ColourFinder(), target_of(RED))
    assert env.greet() == "hello"
    assert env.get_wrapper_attr("gravity") == env.gravity == 9.81
    assert env.render_mode == "rgb_array"
    assert env.action_space is inside.action_space
    env.set_wrapper_attr("gravity", 1.62)
    assert (inside.gravity, env.gravity) == (1.62, 1.62)
    env.reset(seed=1)
    assert np.array_equal(env.render(), inside.picture)
    assert inside._t == env.get_wrapper_attr("_t") == 0
    with pytest.raises(AttributeError, match="_t"):
        _ = env._t
    env.close()
    assert inside.closed == 1


def test_attributes_are_found_through_other_wrappers(registered: str) -> None:
    env = MaskedObservation(gymnasium.make(registered), ColourFinder(), target_of(RED))
    assert env.greet() == "hello"
    assert env.gravity == env.get_wrapper_attr("gravity") == 9.81
    env.set_wrapper_attr("gravity", 1.62)
    assert env.unwrapped.gravity == env.gravity == 1.62
    assert env.spec.max_episode_steps == 50
    env.reset(seed=5)
    assert env.np_random is env.unwrapped.np_random
    assert env.np_random_seed == 5
    with pytest.raises(AttributeError, match="curtsy"):
        env.curtsy()


def test_an_attribute_nobody_has_is_set_on_the_wrapper() -> None:
    env = MaskedObservation(SquaresGym(), ColourFinder(), target_of(RED))
    assert not env.set_wrapper_attr("wind", 3.0, force=False)
    assert not hasattr(env, "wind")
    assert env.set_wrapper_attr("wind", 3.0)
    assert env.wind == 3.0
    assert not hasattr(env.unwrapped, "wind")
    env.set_wrapper_attr("metadata", {"render_modes": []})
    assert env.unwrapped.metadata["render_modes"] == ["rgb_array"]


def test_a_copy_is_a_wrapper_of_the_same_environment() -> None:
    env = MaskedObservation(SquaresGym(), ColourFinder(), target_of(RED))
    again = copy.copy(env)
    assert type(again) is MaskedObservation
    assert again.unwrapped is env.unwrapped


def test_no_mask_is_held_beyond_its_episode() -> None:
    finder = ColourFinder([0.9, 0.1, 0.1])
    env = MaskedObservation(SquaresGym(), finder, target_of(RED), mode="mask", threshold=0.5, lost="hold")
    first, _ = env.reset()
    held = env.step(ACTION)[0]
    assert first.any()
    assert np.array_equal(first, held)
    assert not env.reset()[0].any()


def test_no_mask_is_held_when_the_wrapped_environment_resets_itself() -> None:
    finder = ColourFinder([0.9, 0.9, 0.1])
    inside = gymnasium.wrappers.Autoreset(SquaresGym(length=1))
    env = MaskedObservation(inside, finder, target_of(RED), mode="mask", threshold=0.5, lost="hold")
    env.reset()
    last, *_ = env.step(ACTION)
    assert last.any()
    begun, *_ = env.step(ACTION)
    assert env.unwrapped._t == 0
    assert not begun.any()


def test_a_stack_forwards_the_segmentation_and_attributes() -> None:
    inside = SquaresGym(render_mode="rgb_array")
    masked = MaskedObservation(inside, ColourFinder([0.7, 0.8]), target_of(RED))
    env = stack(masked, 3)
    first, _ = env.reset()
    second = env.step(ACTION)[0]
    assert env.segmentation is masked.segmentation
    assert env.segmentation.score == 0.8
    assert env.target is masked.target
    assert (env.greet(), env.gravity) == ("hello", 9.81)
    shown = [frame[6:].transpose(1, 2, 0) for frame in (first, second)]
    assert np.array_equal(shown[1], env.segmentation.masked)
    assert np.array_equal(second, np.concatenate((first[6:], first[6:], second[6:])))
    env.set_wrapper_attr("gravity", 1.62)
    assert (inside.gravity, "gravity" in vars(env)) == (1.62, False)
    with pytest.raises(AttributeError, match="curtsy"):
        env.curtsy()
    env.close()
    assert inside.closed == 1


def test_a_stack_has_no_images_of_the_previous_episode() -> None:
    check(stack(SquaresGym(), 2))
    env = stack(gymnasium.wrappers.Autoreset(SquaresGym(length=1)), 2)
    env.reset()
    last, *_ = env.step(ACTION)
    begun, *_ = env.step(ACTION)
    assert not np.array_equal(last[:3], last[3:])
    assert np.array_equal(begun[:3], begun[3:])


def test_images_in_a_stack_stay_when_the_environment_reuses_its_buffer() -> None:
    class Grey(SquaresGym):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
            self.buffer = np.zeros((SIZE, SIZE, 1), np.uint8)

        def _observation(self) -> Any:
            self.buffer[:] = 10 + self._t
            return self.buffer

    env = stack(Grey(), 2)
    env.reset()
    assert env.step(ACTION)[0].mean(axis=(1, 2)).tolist() == [10, 11]


def test_a_stack_can_be_built_again_from_its_spec(registered: str) -> None:
    env = stack(MaskedObservation(gymnasium.make(registered), ColourFinder(), target_of(RED)), 3)
    again = gymnasium.make(env.spec)
    assert again.observation_space == env.observation_space == gymnasium.spaces.Box(0, 255, (9, SIZE, SIZE), np.uint8)
    assert again.reset(seed=0)[0] in again.observation_space


@pytest.mark.parametrize("mode", MODES)
def test_a_stack_is_not_stacked_again(mode: Any) -> None:
    once = stack(MaskedObservation(SquaresGym(), ColourFinder(), target_of(RED), mode=mode), 2)
    assert once.observation_space.shape == (2 * MODES[mode], SIZE, SIZE)
    sentence = r"channels, .* not shape \(\d, 24, 24\): what is stacked already is made with frame_stack=None"
    with pytest.raises(InputError, match=sentence):
        stack(once, 3)


def test_skipped_frames_are_not_segmented() -> None:
    class FrameSkip(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            super().step(action)
            return super().step(action)

    segmenter = ColourFinder()
    env = MaskedObservation(FrameSkip(SquaresGym(length=100)), segmenter, target_of(RED), mode="rgbm")
    env.reset()
    for _ in range(5):
        image = env.step(ACTION)[0]
    assert segmenter.batches == [1] * 6
    assert np.array_equal(image[..., :3], env.unwrapped.picture)  # the last of the skipped frames


@pytest.mark.parametrize(
    ("inside", "arguments", "error", "sentence"),
    [
        (SquaresDm(), {}, InputTypeError, "env must be a gymnasium.Env, not SquaresDm"),
        (SquaresGym(key="rgb"), {}, InputError, r"pixels_key must be one of the observation's 'time', 'rgb', not None"),
        (SquaresGym(key="rgb"), {"pixels_key": "time"}, InputTypeError, r"\['time'\] must be uint8 RGB .* not float32"),
        (SquaresGym(), {"pixels_key": "rgb"}, InputError, "must be None where the observation is one array"),
        (
            SquaresGym(),
            {"target": target_of(RED, "0" * 64)},
            BundleError,
            "target was made with another version of bundle",
        ),
        (SquaresGym(), {"target": None}, InputError, "target or reference must be given"),
        (
            gymnasium.wrappers.FrameStackObservation(SquaresGym(), 3),
            {},
            InputError,
            r"one picture at a time, \(H, W, 3\), not \(3, 24, 24, 3\)",
        ),
    ],
)
def test_bad_arguments_get_a_sentence(
    inside: Any, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        MaskedObservation(inside, ColourFinder(), **{"target": target_of(RED), **arguments})


def test_an_observation_that_does_not_match_its_space_gets_a_sentence() -> None:
    class Floats(SquaresGym):
        def _observation(self) -> Any:
            return super()._observation() / 255

    inside = Floats()
    env = MaskedObservation(inside, ColourFinder(), target_of(RED))
    with pytest.raises(InputTypeError, match=r"observation must be uint8 RGB of shape \(24, 24, 3\), not float64"):
        env.reset()
    env.close()
    assert inside.closed == 1


def test_memory_does_not_grow() -> None:
    segmenter = ColourFinder()
    env = MaskedObservation(SquaresGym(length=50), segmenter, target_of(RED), mode="rgbm", threshold=0.5, lost="hold")

    def walk(steps: int) -> None:
        segmenter.batches.clear()
        env.reset(seed=0)
        for _ in range(steps):
            *_, truncated, _ = env.step(ACTION)
            if truncated:
                env.reset()

    walk(50)
    tracemalloc.start()
    try:
        walk(50)
        before, _ = tracemalloc.get_traced_memory()
        walk(3000)
        segmenter.batches.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 3 * SIZE * SIZE  # less than a single frame


def large(t: int) -> Any:
    """Draw the squares twice as large: the CNN of stable-baselines3 needs at least 36 pixels."""
    return np.kron(squares(t), np.ones((2, 2, 1), np.uint8))


def learnable(tiny: samg_fast.Segmenter) -> MaskedObservation:
    """Return large squares as a learning environment, with real masks."""
    box = gymnasium.spaces.Box(0, 255, (2 * SIZE, 2 * SIZE, 3), np.uint8)
    inside = gymnasium.wrappers.TransformObservation(
        SquaresGym(length=25), lambda image: np.kron(image, np.ones((2, 2, 1), np.uint8)), box
    )
    return MaskedObservation(inside, tiny, reference=(large(0), is_colour(large(0), RED)))


@pytest.mark.usefixtures("one_thread")
def test_stable_baselines3_learns_on_top(tiny: samg_fast.Segmenter) -> None:
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env as check_for_sb3
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    env = Monitor(learnable(tiny))
    check_for_sb3(env)
    model = PPO("CnnPolicy", env, n_steps=100, batch_size=50, n_epochs=1, seed=0, device="cpu")
    model.learn(300)
    assert model.num_timesteps == 300
    assert env.get_total_steps() >= 300
    mean, _ = evaluate_policy(model, env, n_eval_episodes=1)
    assert mean == sum(range(1, 26))


@pytest.mark.usefixtures("one_thread")
def test_torchrl_runs_on_top(tiny: samg_fast.Segmenter) -> None:
    pytest.importorskip("torchrl", reason="torchrl is not installed")
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    env = GymWrapper(learnable(tiny), device="cpu")
    check_env_specs(env)
    roll = env.rollout(200, break_when_any_done=False)
    assert roll["pixels"].shape == (200, 2 * SIZE, 2 * SIZE, 3)
    assert int(roll["next", "truncated"].sum()) == 8
    assert int(roll["next", "terminated"].sum()) == 0
    env.close()
