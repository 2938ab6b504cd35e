"""`MaskedPixels` and the official code's frame stack, on a cheap environment and on dm_control's."""

from __future__ import annotations

import pytest

pytest.importorskip("dm_env", reason="dm_env is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")  # pixel_envs speaks both

import copy
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from dm_env.test_utils import EnvironmentTestMixin

import samg_fast
from samg_fast.envs import stack
from samg_fast.errors import BundleError, FileError, InputError, InputTypeError
from samg_fast.media import write_image
from samg_fast.samples import load_pack
from samg_fast.wrappers.dm_env import FrameStack, FrameStackWithSAMG, MaskedPixels
from support.pixel_envs import (
    FINGERPRINT,
    RED,
    SIZE,
    ColourFinder,
    SquaresDm,
    SquaresGym,
    is_colour,
    squares,
    target_of,
)
from support.rendering import needs_rendering

ACTION = np.zeros(1, np.float32)


class Conformity(EnvironmentTestMixin):
    """dm_env's own checks."""

    def make_action_sequence(self) -> Iterator[Any]:
        for _ in range(11):  # past two ends
            yield self.make_action()


class TestCompositeConforms(Conformity, unittest.TestCase):
    def make_object_under_test(self) -> Any:
        return MaskedPixels(SquaresDm(), ColourFinder(), target_of(RED))


class TestMaskConforms(Conformity, unittest.TestCase):
    def make_object_under_test(self) -> Any:
        return MaskedPixels(SquaresDm(lead=(1,)), ColourFinder(), target_of(RED), mode="mask")


class TestRgbmConforms(Conformity, unittest.TestCase):
    def make_object_under_test(self) -> Any:
        reference = squares(0), is_colour(squares(0), RED)
        return MaskedPixels(SquaresDm(), ColourFinder(), reference=reference, mode="rgbm", threshold=0.95, lost="hold")


@pytest.mark.parametrize("lead", [(), (1,)])
def test_only_the_pixels_change(lead: tuple[int, ...]) -> None:
    inside = SquaresDm(lead=lead)
    bare, env = SquaresDm(lead=lead), MaskedPixels(inside, ColourFinder(), target_of(RED))
    for t in range(12):
        expected, got = (bare.reset(), env.reset()) if t == 7 else (bare.step(ACTION), env.step(ACTION))
        assert got[:3] == expected[:3]
        assert got.observation["time"] == expected.observation["time"]
        assert type(got.observation) is type(expected.observation)
        frame = expected.observation["pixels"]
        assert np.array_equal(got.observation["pixels"], frame * is_colour(frame, RED)[..., None])
        assert np.array_equal(inside.shown[-1].reshape(frame.shape), frame)  # the environment's own image is unchanged


def test_everything_else_is_forwarded_to_the_environment() -> None:
    inside = SquaresDm()
    env = MaskedPixels(inside, ColourFinder(), target_of(RED), mode="rgbm")
    assert env.greet() == "hello"
    assert env.length == 4
    assert env.action_spec() == inside.action_spec()
    assert env.reward_spec().name == "progress"
    assert env.discount_spec().name == "patience"
    assert env.observation_spec()["time"] == inside.observation_spec()["time"]
    assert env.observation_spec()["pixels"] == specs.BoundedArray((SIZE, SIZE, 4), np.uint8, 0, 255)
    assert env.observation_spec()["pixels"].name == "picture"
    assert inside.observation_spec()["pixels"].shape == (SIZE, SIZE, 3)
    with pytest.raises(AttributeError, match="curtsy"):
        env.curtsy()
    with env:
        pass
    assert inside.closed == 1


def test_a_copy_of_the_wrapper_is_a_wrapper() -> None:
    class Copied(SquaresDm):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

        def __getstate__(self) -> Any:
            raise AssertionError("the wrapper's state is not that of the environment")

    inside = Copied()
    env = MaskedPixels(inside, ColourFinder(), target_of(RED))
    for again in (copy.copy(env), copy.deepcopy(env)):
        assert type(again) is MaskedPixels
        assert np.array_equal(again.reset().observation["pixels"], env.reset().observation["pixels"])


def test_an_observation_may_be_the_image_itself() -> None:
    class Bare(SquaresDm):
        def _observation(self) -> Any:
            return super()._observation()["pixels"]

    inside = Bare(spec=specs.BoundedArray((SIZE, SIZE, 3), np.uint8, 0, 255))
    env = MaskedPixels(inside, ColourFinder(), target_of(RED), pixels_key=None, mode="mask")
    env.observation_spec().validate(env.reset().observation)


def test_a_stack_is_not_stacked_again() -> None:
    once = stack(MaskedPixels(SquaresDm(), ColourFinder(), target_of(RED)), 2)
    with pytest.raises(
        InputError, match=r"pixels must have 1, 3 or 4 channels, .* not shape \(6, 24, 24\): what is st"
    ):
        stack(once, 3)


def test_one_frame_is_segmented_per_step_of_the_agent() -> None:
    class ActionRepeat(SquaresDm):
        def step(self, action: Any) -> dm_env.TimeStep:
            super().step(action)
            return super().step(action)

    segmenter = ColourFinder()
    env = MaskedPixels(ActionRepeat(length=100), segmenter, target_of(RED))
    env.reset()
    for _ in range(5):
        env.step(ACTION)
    assert segmenter.batches == [1] * 6


@pytest.mark.parametrize("first", ["reset", "step"])
def test_no_mask_is_held_beyond_its_episode(first: str) -> None:
    sure = [0.9, 0.9, 0.1, 0.9, 0.9, 0.1]  # lost in the middle of an episode, and at the start of the next
    env = MaskedPixels(SquaresDm(), ColourFinder(sure), target_of(RED), mode="mask", threshold=0.5, lost="hold")
    env.reset()
    shown = [env.step(ACTION).observation["pixels"] for _ in range(4)]
    assert np.array_equal(shown[0], shown[1])
    begun = env.reset() if first == "reset" else env.step(ACTION)
    assert begun.first()
    assert not begun.observation["pixels"].any()


@pytest.mark.parametrize(
    ("inside", "arguments", "error", "sentence"),
    [
        (SquaresGym(), {}, InputTypeError, "env must be a dm_env.Environment, not SquaresGym"),
        (SquaresDm(), {"pixels_key": "camera"}, InputError, "one of the observation's 'pixels', 'time', not 'camera'"),
        (SquaresDm(), {"pixels_key": "time"}, InputTypeError, r"observation\['time'\] must be uint8 RGB"),
        (SquaresDm(lead=(2,)), {}, InputError, r"one picture at a time, .*, not \(2, 24, 24, 3\)"),
        (SquaresDm(), {"target": target_of(RED, "0" * 64)}, BundleError, "identify it again"),
        (SquaresDm(), {"mode": "grey"}, InputError, "mode must be"),
    ],
)
def test_bad_arguments_get_a_sentence(
    inside: Any, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        MaskedPixels(inside, ColourFinder(), **{"target": target_of(RED), **arguments})


@pytest.fixture(scope="module")
def tiny() -> Iterator[samg_fast.Segmenter]:
    pytest.importorskip("openvino", reason="openvino is not installed")
    with samg_fast.load("tiny", backend="openvino", threads=1) as segmenter:
        yield segmenter


@needs_rendering
def test_a_dm_control_task_shows_its_robot_alone(tiny: samg_fast.Segmenter) -> None:
    from dm_control import suite
    from dm_control.suite.wrappers import pixels

    walker = load_pack().tasks["walker_walk"]
    inside = pixels.Wrapper(
        suite.load("walker", "walk", task_kwargs={"random": 1}),
        pixels_only=False,
        render_kwargs={"height": 84, "width": 84, "camera_id": 0},
    )
    with MaskedPixels(inside, tiny, reference=(walker.reference, walker.reference_mask)) as env:
        assert env.physics is inside.physics
        random = np.random.default_rng(0)
        step = env.reset()
        for _ in range(4):
            assert set(step.observation) == set(inside.observation_spec())
            assert np.array_equal(step.observation["pixels"], env.segmentation.masked)
            assert 100 < env.segmentation.mask.sum() < 2500
            step = env.step(random.uniform(-1, 1, 6))


def official_config(folder: Path, **changed: Any) -> Any:
    """Write the images that the official script reads, of the walker, and return its configuration."""
    walker = load_pack().tasks["walker_walk"]
    masked = walker.reference * walker.reference_mask[..., None]
    part = masked.copy()
    part[40:] = 0
    files = {"original_image": walker.reference, "masked_image": masked, "part": part}
    for name, image in files.items():
        write_image(folder / f"{name}.png", image)
    y, x = np.argwhere(walker.reference_mask)[20]
    config = {
        "original_image": str(folder / "original_image.png"),
        "masked_image": str(folder / "masked_image.png"),
        "extra_points_list": [[int(x), int(y)]],
        "extra_masked_images_list": [str(folder / "part.png")],
    }
    return SimpleNamespace(**{**config, **changed})


class Walking(SquaresDm):
    """Shows the frames of a rendered episode."""

    def __init__(self, **arguments: Any) -> None:
        pixels = specs.Array((84, 84, 3), np.uint8, "pixels")
        super().__init__(spec={"pixels": pixels}, **arguments)
        self.frames, _ = load_pack().tasks["walker_walk"].settings["video_easy"]

    def _observation(self) -> Any:
        return {"pixels": self.frames[self._t]}


def test_the_official_stack_gives_what_the_official_script_expects(tiny: samg_fast.Segmenter, tmp_path: Path) -> None:
    config = official_config(tmp_path)
    env = FrameStackWithSAMG(Walking(), 3, "pixels", config, segmenter=tiny)
    image, masked, part = (samg_fast.media.read_image(tmp_path / f"{name}.png") for name in _FILES)
    target = tiny.identify_masked_picture(image, masked, config.extra_points_list, [part])
    target = tiny.adapt(target, image, masked[..., 0] > 0)
    assert np.array_equal(env.target.mask_weights, target.mask_weights)
    frames = [tiny.segment(frame, target).masked.transpose(2, 0, 1) for frame in Walking().frames[:5]]

    assert env.observation_spec() == specs.BoundedArray((9, 84, 84), np.uint8, 0, 255, "observation")
    assert np.array_equal(env.reset().observation, np.concatenate(frames[:1] * 3))
    for t in range(1, 5):
        step = env.step(ACTION)
        expected = np.concatenate([frames[max(k, 0)] for k in (t - 2, t - 1, t)])
        assert np.array_equal(step.observation, expected)
    assert step.last()
    again = env.step(ACTION)  # a new episode, without frames of the previous one
    assert again.first()
    assert np.array_equal(again.observation, np.concatenate(frames[:1] * 3))


_FILES = ("original_image", "masked_image", "part")


@needs_rendering
def test_the_stack_works_among_the_official_wrappers(tiny: samg_fast.Segmenter, tmp_path: Path) -> None:
    from dm_control import suite
    from dm_control.suite.wrappers import action_scale, pixels

    class ExtendedTimeStep(dm_env.Environment):
        """Uses only four methods and the attributes of the wrapper inside, as the official one does."""

        def __init__(self, env: Any) -> None:
            self._env = env

        def reset(self) -> Any:
            return self._env.reset()

        def step(self, action: Any) -> Any:
            return self._env.step(action)

        def observation_spec(self) -> Any:
            return self._env.observation_spec()

        def action_spec(self) -> Any:
            return self._env.action_spec()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._env, name)

    env = suite.load("walker", "walk", task_kwargs={"random": 1}, visualize_reward=False)
    env = action_scale.Wrapper(env, minimum=-1.0, maximum=+1.0)
    env = pixels.Wrapper(env, pixels_only=True, render_kwargs={"height": 84, "width": 84, "camera_id": 0})
    stack = FrameStackWithSAMG(env, 3, "pixels", official_config(tmp_path), segmenter=tiny)
    env = ExtendedTimeStep(stack)
    env.observation_spec().validate(env.reset().observation)
    step = env.step(np.zeros(env.action_spec().shape))
    assert np.array_equal(step.observation[6:], stack.segmentation.masked.transpose(2, 0, 1))
    assert 100 < (step.observation[6:].any(axis=0)).sum() < 2500
    assert env.physics.render(84, 84, camera_id=0).shape == (84, 84, 3)
    stack.close()


def test_the_official_config_may_be_a_mapping_whose_lists_are_null(tiny: samg_fast.Segmenter, tmp_path: Path) -> None:
    lists: dict[str, Any] = {"extra_points_list": None, "extra_masked_images_list": None}
    config = official_config(tmp_path, **lists)
    from_yaml = dict(vars(config))
    empty = official_config(tmp_path, **{name: [] for name in lists})
    targets = [FrameStackWithSAMG(Walking(), 1, "pixels", each, segmenter=tiny).target for each in (from_yaml, config)]
    expected = FrameStackWithSAMG(Walking(), 1, "pixels", empty, segmenter=tiny).target
    for target in targets:
        assert len(target.parts_sam) == 0
        assert np.array_equal(target.sam, expected.sam)
        assert np.array_equal(target.mask_weights, expected.mask_weights)
    del from_yaml["extra_points_list"]
    with pytest.raises(InputError, match=r"and dict has no extra_points_list$"):
        FrameStackWithSAMG(Walking(), 1, "pixels", from_yaml, segmenter=tiny)


class TestStackConforms(Conformity, unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _config(self, tmp_path: Path) -> None:
        pytest.importorskip("openvino", reason="openvino is not installed")
        self.config = official_config(tmp_path)

    def make_object_under_test(self) -> Any:
        return FrameStackWithSAMG(Walking(), 2, handmade_4_SAM=self.config)


def test_a_bundle_opened_by_name_is_closed_with_the_environment(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    inside = Walking()
    env = FrameStackWithSAMG(inside, 1, "pixels", official_config(tmp_path))
    env.reset()
    assert env.greet() == "hello"
    env.close()
    assert inside.closed == 1
    with pytest.raises(samg_fast.BackendError):
        env.reset()


def test_a_copy_keeps_the_segmenter_that_was_opened_by_name(tmp_path: Path) -> None:
    env = FrameStackWithSAMG(Walking(), 1, "pixels", official_config(tmp_path))
    env.reset()
    other = copy.deepcopy(env)
    env.close()
    assert other.step(np.zeros(1)).observation.shape == (3, 84, 84)


@pytest.mark.parametrize(
    ("nest", "key"),
    [
        (lambda inner: {"cameras": inner, "time": 0}, ("cameras", "pixels")),
        (lambda inner: (0, inner), [1, "pixels"]),
        (lambda inner: {"robots": ({"arm": 1}, {"eye": inner["pixels"]})}, ("robots", 1, "eye")),
    ],
)
def test_nested_images_are_reached_by_a_path(nest: Any, key: Any) -> None:
    class Nested(SquaresDm):
        def _observation(self) -> Any:
            return nest(super()._observation())

        def observation_spec(self) -> Any:
            return nest(super().observation_spec())

    inside = Nested()
    env = FrameStack(MaskedPixels(inside, ColourFinder(), target_of(RED), pixels_key=key), 2, key)
    observation: Any = env.reset().observation
    spec = env.observation_spec()
    for step in key:
        observation, spec = observation[step], spec[step]
    assert observation.shape == spec.shape == (6, SIZE, SIZE)
    masked = inside.shown[0] * is_colour(inside.shown[0], RED)[..., None]
    assert np.array_equal(observation[:3], masked.transpose(2, 0, 1))


def test_a_given_segmenter_stays_open(tiny: samg_fast.Segmenter, tmp_path: Path) -> None:
    FrameStackWithSAMG(Walking(), 1, "pixels", official_config(tmp_path), segmenter=tiny).close()
    tiny.identify(squares(0), is_colour(squares(0), RED))


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"segmenter": None}, InputTypeError, "segmenter must be what samg_fast.load gives, not None"),
        ({"num_frames": 0}, InputError, "num_frames must be at least 1, not 0"),
        ({"pixels_key": "camera"}, InputError, "one of the observation's 'pixels', not 'camera'"),
        ({"handmade_4_SAM": None}, InputError, "handmade_4_SAM must have original_image, .*NoneType has no original_i"),
        ({"handmade_4_SAM": {"masked_image": None}}, InputError, "and SimpleNamespace has no masked_image$"),
        ({"handmade_4_SAM": {"masked_image": "no.png"}}, FileError, "no.png"),
        ({"handmade_4_SAM": {"extra_points_list": [[200, 3]]}}, InputError, r"points has \(200, 3\)"),
        ({"handmade_4_SAM": {"extra_points_list": [40, 40]}}, InputError, r"points must be .* not \(2,\)"),
        ({"handmade_4_SAM": {"extra_points_list": 40}}, InputTypeError, "extra_points_list must be a list, not 40"),
        ({"handmade_4_SAM": {"extra_points_list": "40"}}, InputTypeError, "extra_points_list must be a list, not '40'"),
        ({"handmade_4_SAM": {"extra_masked_images_list": "a.png"}}, InputTypeError, "list must be a list, not 'a.png'"),
    ],
)
def test_a_bad_official_config_gets_a_sentence(
    tiny: samg_fast.Segmenter, tmp_path: Path, changed: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    usual = {"num_frames": 3, "pixels_key": "pixels", "handmade_4_SAM": {}, "segmenter": tiny}
    arguments: dict[str, Any] = {**usual, **changed}
    given = arguments["handmade_4_SAM"]
    arguments["handmade_4_SAM"] = None if given is None else official_config(tmp_path, **given)
    with pytest.raises(error, match=sentence):
        FrameStackWithSAMG(Walking(), **arguments)


def test_a_target_of_another_bundle_is_refused(tiny: samg_fast.Segmenter) -> None:
    assert tiny.bundle.fingerprint != FINGERPRINT
    with pytest.raises(BundleError, match="this segmenter runs tiny"):
        MaskedPixels(SquaresDm(), tiny, target_of(RED))
