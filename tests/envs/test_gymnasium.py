"""Tasks as gymnasium environments: what agents see, how episodes end, and that seeds reproduce to the pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import envs
from samg_fast.bundle import zoo
from samg_fast.envs import SETTINGS, backgrounds, stack
from samg_fast.envs.backgrounds import ClipFolder
from samg_fast.envs.rendering import KIND_FLOOR, KIND_SKY
from samg_fast.envs.scene import Scene
from samg_fast.envs.settings import Colors, load_colors
from samg_fast.errors import BundleError, FileError, InputError, InputTypeError, RenderingError, SamgError
from support.clips import Flat, write_video
from support.paths import SHARED_CLIPS
from support.rendering import needs_rendering
from support.synthetic_bundle import write_fitted_bundle

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")

from gymnasium.utils.env_checker import check_env  # noqa: E402

pytestmark = needs_rendering

make = partial(envs.make, seed=0)
"""Environments here are alike unless a test gives them a seed: without one, every environment draws its own."""


def rollout(env: Any, steps: int, seed: int | None = None) -> NDArray[np.uint8]:
    env.action_space.seed(0)
    return np.stack([env.reset(seed=seed)[0], *(env.step(env.action_space.sample())[0] for _ in range(steps))])


@pytest.mark.filterwarnings("ignore:.*spec.*:UserWarning", "ignore:.*unwrapped.*:UserWarning")
@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("walker_walk", {"setting": "video_hard", "size": 84, "frame_stack": 3, "action_repeat": 2}),
        ("pendulum_swingup", {"size": 16, "frame_stack": None, "ground_truth": True}),
    ],
)
def test_gymnasium_s_own_checks_pass(task: str, arguments: dict[str, Any]) -> None:
    env = make(task, **arguments)
    check_env(env)
    env.close()


def test_spaces_describe_observations_and_actions() -> None:
    for frames, size, shape in ((None, (24, 40), (24, 40, 3)), (1, 84, (3, 84, 84)), (3, 160, (9, 160, 160))):
        env = make("pendulum_swingup", size=size, frame_stack=frames)
        observation, _ = env.reset()
        assert env.observation_space == gymnasium.spaces.Box(0, 255, shape, np.uint8)
        assert env.observation_space.contains(observation)
        assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        env.close()


@pytest.mark.parametrize("setting", ["color_hard", "video_hard"])
def test_seeds_reproduce_to_the_pixel(setting: str) -> None:
    def fresh(seed: int) -> Any:
        return make("pendulum_swingup", setting=setting, size=24, seed=seed)

    env = fresh(5)
    first = rollout(env, 2)
    second = rollout(env, 2)
    assert (first != second).any()
    np.testing.assert_array_equal(rollout(env, 2, seed=5), first)  # back to a new environment's state
    np.testing.assert_array_equal(rollout(env, 2), second)
    other = fresh(6)
    assert (rollout(other, 2) != first).any()
    np.testing.assert_array_equal(rollout(other, 2, seed=5), first)
    env.close()
    other.close()


def test_the_seed_determines_the_model_too() -> None:
    # The springs of this task are drawn while it is loaded.
    env, other = make("lqr_lqr_2_1", size=8, seed=1), make("lqr_lqr_2_1", size=8, seed=2)
    other.reset(seed=1)
    env.reset()
    springs = [each.unwrapped.scene.simulation.model.jnt_stiffness for each in (env, other)]
    np.testing.assert_array_equal(*springs)
    assert springs[0].any()
    env.close()
    other.close()


def test_rewards_of_a_repeated_action_are_summed() -> None:
    once, thrice = (make("walker_walk", size=16, frame_stack=None, action_repeat=repeat) for repeat in (1, 3))
    once.reset()
    thrice.reset()
    action = np.full(6, 0.5, np.float32)
    for _ in range(2):
        rewards = [once.step(action)[1] for _ in range(3)]
        image, reward, *_ = thrice.step(action)
        assert reward == pytest.approx(sum(rewards), rel=1e-12)
        assert reward > 0
        np.testing.assert_array_equal(image, once.render())
    once.close()
    thrice.close()


def test_the_time_limit_truncates_and_stops_the_action_repeat() -> None:
    env = make("cartpole_balance", size=8, action_repeat=400)
    env.reset()
    ends = [env.step([0.0])[1:4] for _ in range(3)]
    assert [end[1:] for end in ends] == [(False, False), (False, False), (False, True)]
    assert env.unwrapped.scene.simulation.data.time == pytest.approx(10.0)  # 1,000 control steps, not 1,200
    with pytest.raises(SamgError, match=r"cartpole_balance is in no episode: call reset\(\) first"):
        env.unwrapped.step([0.0])
    env.reset()
    assert env.step([0.0])[3] is False
    env.close()


def test_the_task_s_own_end_is_a_termination() -> None:
    env = make("lqr_lqr_2_1", size=8)
    env.reset()
    physics = env.unwrapped.scene.environment.physics
    with physics.reset_context():
        physics.data.qpos[:] = physics.data.qvel[:] = 0.0  # where the task wants to be
    _, _, terminated, truncated, _ = env.step([0.0])
    assert (terminated, truncated) == (True, False)
    env.close()


@pytest.mark.parametrize("task", ["quadruped_walk", "lqr_lqr_6_2"])
def test_actions_reach_from_one_end_of_the_actuators_range_to_the_other(task: str) -> None:
    env = make(task, size=8)
    spec = env.unwrapped.scene.simulation.action_spec
    limited = np.abs(spec.maximum) < 1e9
    for action, end, free in ((-1.0, spec.minimum, -1.0), (1.0, spec.maximum, 1.0)):
        env.reset()
        env.step(np.full(spec.shape, action, np.float32))
        control = env.unwrapped.scene.simulation.data.ctrl
        np.testing.assert_allclose(control, np.where(limited, end, free), rtol=1e-6)
    env.close()


@pytest.mark.parametrize(("setting", "kinds"), [("video_easy", (KIND_SKY,)), ("video_hard", (KIND_SKY, KIND_FLOOR))])
def test_frames_with_different_clips_differ_exactly_in_the_background(setting: str, kinds: tuple[int, ...]) -> None:
    seen = []
    for color in ((255, 0, 255), (0, 255, 0)):
        clips = [Flat("flat", color)]
        env = make("finger_spin", setting=setting, size=48, frame_stack=None, clips=clips, ground_truth=True)
        env.reset()
        image, *_, info = env.step(np.ones(env.action_space.shape))
        assert (info["mask"].dtype, info["mask"].shape) == (np.bool_, (48, 48))
        behind = np.isin(env.unwrapped.scene.rendered.kind, kinds)
        assert (image[behind] == color).all()
        seen.append((image, info["mask"], behind))
        env.close()
    (first, mask, behind), (second, same, _) = seen
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal((first != second).any(axis=-1), behind)
    assert mask.any()
    assert not (mask & behind).any()


def test_the_rest_of_a_frame_is_as_in_the_original_setting() -> None:
    built = [make("finger_spin", setting=setting, size=32, frame_stack=None) for setting in ("original", "video_hard")]
    plain, behind = (env.reset()[0] for env in built)
    kept = built[1].unwrapped.scene.rendered.kind > KIND_FLOOR
    np.testing.assert_array_equal(behind[kept], plain[kept])
    assert (behind[~kept] != plain[~kept]).any(axis=-1).mean() > 0.9
    for env in built:
        env.close()


def test_colours_can_be_given() -> None:
    seen = []
    for red in (0.0, 1.0):
        env = make(
            "cheetah_run",
            setting="color_easy",
            size=32,
            frame_stack=None,
            colors=(Colors(self_rgb=(red, 0.0, 0.0)),),
            ground_truth=True,
        )
        image, info = env.reset()
        seen.append(image[info["mask"]][:, 0].mean())
        env.close()
    assert seen[1] > seen[0] + 100


def test_each_setting_finds_its_own_files_in_the_benchmark_s_folder(tmp_path: Path) -> None:
    for name, grey in (("video_easy", 50), ("video_hard", 200)):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / f"{name}.mp4", [grey])
        color = name.replace("video", "color")
        (tmp_path / f"{color}.json").write_text(json.dumps([{"self_rgb": [grey / 255, 0, 0]}]))
    seen = {}
    for setting in SETTINGS:
        env = make("walker_walk", setting=setting, size=48, frame_stack=None, clips=tmp_path, colors=str(tmp_path))
        image, _ = env.reset()
        rendered = env.unwrapped.scene.rendered
        seen[setting] = image[rendered.kind == KIND_SKY].mean(), image[rendered.mask].mean(0)
        env.close()
    assert [seen[name][0] for name in ("video_easy", "video_hard")] == pytest.approx([50, 200], abs=6)
    assert seen["color_hard"][1][0] > 2 * seen["color_easy"][1][0]
    assert seen["original"][1][1] > 3 * seen["color_hard"][1][1]  # only red is left


@pytest.mark.parametrize(("missing", "error"), [("video_hard", InputError), ("color_hard", FileError)])
def test_what_a_folder_lacks_is_named(tmp_path: Path, missing: str, error: type[Exception]) -> None:
    (tmp_path / "video_easy").mkdir()
    write_video(tmp_path / "video_easy" / "a.mp4", [0])
    (tmp_path / "color_easy.json").write_text("[{}]")
    with pytest.raises(error, match=str(tmp_path)):
        make("walker_walk", setting=missing, clips=tmp_path, colors=tmp_path)


def test_colours_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "colors.json"
    path.write_text(json.dumps([{"skybox_rgb": [1, 0, 0], "grid_rgb1": [0, 0, 0]}]))
    frames = []
    for colors in (path, load_colors(path), list(load_colors(path))):
        env = make("walker_walk", setting="color_hard", size=24, frame_stack=None, colors=colors)
        frames.append(env.reset()[0])
        env.close()
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_the_mask_is_in_the_info_only_on_request() -> None:
    env = make("pendulum_swingup", size=8)
    assert env.reset()[1] == env.step([0.0])[4] == {}
    env.close()


def test_a_stack_has_the_latest_images_channels_first() -> None:
    single, stacked = (make("pendulum_swingup", size=24, frame_stack=frames) for frames in (None, 3))
    seen = [single.reset()[0].transpose(2, 0, 1)] * 3
    np.testing.assert_array_equal(stacked.reset()[0], np.concatenate(seen))
    for action in ([1.0], [-1.0], [1.0], [1.0]):
        seen.append(single.step(action)[0].transpose(2, 0, 1))
        observation = stacked.step(action)[0]
        np.testing.assert_array_equal(observation, np.concatenate(seen[-3:]))
    np.testing.assert_array_equal(stacked.render(), single.render())
    np.testing.assert_array_equal(stacked.reset()[0][:3], stacked.render().transpose(2, 0, 1))
    single.close()
    stacked.close()


def test_a_stack_forwards_attributes_and_is_not_stacked_again() -> None:
    env = make("pendulum_swingup", size=24)
    env.reset()
    assert env.scene is env.unwrapped.scene
    with pytest.raises(AttributeError, match="nothing"):
        _ = env.nothing
    with pytest.raises(
        InputError, match=r"not shape \(9, 24, 24\): what is stacked already is made with frame_stack=None"
    ):
        stack(env, 3)
    env.close()


def test_images_changed_by_a_wrapper_can_be_stacked() -> None:
    env = make("pendulum_swingup", size=24, frame_stack=None)
    space = gymnasium.spaces.Box(0, 255, (24, 24, 1), np.uint8)
    red = gymnasium.wrappers.TransformObservation(env, lambda image: image[..., :1], space)
    stacked = stack(red, 2)
    observation, _ = stacked.reset()
    assert stacked.observation_space.shape == observation.shape == (2, 24, 24)
    np.testing.assert_array_equal(observation[1], env.render()[..., 0])
    stacked.close()


def test_a_camera_has_an_index_and_a_name() -> None:
    seen = []
    for camera in (None, 1, "side"):
        env = make("walker_walk", size=24, camera=camera, frame_stack=None)
        seen.append(env.reset()[0])
        env.close()
    default, second, named = seen
    np.testing.assert_array_equal(default, named)
    assert (default != second).any()


def test_clips_come_from_a_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [0, 80, 160])
    env = make("walker_walk", setting="video_hard", size=(24, 32), frame_stack=None, clips=tmp_path)
    shown = []
    image, _ = env.reset()
    for _ in range(4):
        scene = env.unwrapped.scene
        shown.append(np.median(image[scene.rendered.kind == KIND_SKY]))
        image, *_ = env.step(np.zeros(6))
    assert scene.clip_name == "a"
    np.testing.assert_allclose(shown, [0, 80, 160, 0], atol=6)
    env.close()


def test_a_broken_clip_is_named_and_the_environment_can_be_closed(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    env = make("walker_walk", setting="video_hard", size=8, clips=str(tmp_path))
    with pytest.raises(FileError, match=r"broken\.mp4 cannot be decoded"):
        env.reset()
    with pytest.raises(SamgError, match=r"call reset\(\) first"):
        env.unwrapped.step(np.zeros(6))
    env.close()


@pytest.mark.parametrize("whole", [0, 2])
def test_a_clip_that_breaks_midway_stays_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    def images(*_: Any) -> Iterator[NDArray[np.uint8]]:
        for t in range(whole):
            yield np.full((8, 8, 3), t, np.uint8)
        raise FileError("clips: a.mp4 cannot be decoded")

    monkeypatch.setattr(backgrounds, "_decode", images)
    clip = backgrounds.FileClip(tmp_path / "a.mp4", (8, 8))
    assert [clip.frame(t).mean() for t in range(whole)] == list(range(whole))
    for t in (whole, whole, whole + 1):
        with pytest.raises(FileError, match=r"a\.mp4 cannot be decoded"):
            clip.frame(t)


def test_a_clip_s_images_can_be_read_in_any_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [0, 100, 200])
    clip = ClipFolder(tmp_path, (8, 6))[0]
    assert clip.frame(0).shape == (8, 6, 3)
    shown = [clip.frame(t).mean() for t in (2, 0, 1, 3, 7)]
    np.testing.assert_allclose(shown, [200, 0, 100, 0, 100], atol=6)


@pytest.mark.skipif(not SHARED_CLIPS.is_dir(), reason="the benchmark's clips are not here")
@pytest.mark.parametrize("setting", ["video_easy", "video_hard"])
def test_the_benchmark_s_clips_work_as_they_are(setting: str) -> None:
    env = make("walker_walk", setting=setting, clips=SHARED_CLIPS / setting, ground_truth=True)
    env.reset()
    assert env.unwrapped.scene.clip_name.startswith("video")
    first, second = (env.step(np.zeros(6))[0] for _ in range(2))
    assert (first != second).mean() > 0.2
    env.close()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": "walker_wok"}, "there is no task 'walker_wok': did you mean walker_"),
        ({"setting": "video_hrad"}, "there is no setting 'video_hrad': did you mean video_hard"),
        ({"camera": "sdie"}, "there is no camera 'sdie': did you mean side"),
        ({"camera": 2}, "camera must be from 0 to 1, not 2"),
        ({"camera": -1}, "camera must be"),
        ({"api": "gym"}, "there is no api 'gym': did you mean gymnasium"),
        ({"frame_stack": 0}, "frame_stack must be at least 1, not 0"),
        ({"action_repeat": 0}, "action_repeat must be"),
        ({"colors": ()}, "colors is empty"),
        ({"colors": []}, "colors is empty"),
        ({"seed": -1}, "seed must be"),
        ({"clips": "nowhere"}, "clips: there is no folder nowhere"),
        ({"clips": Path(__file__).parent}, r"clips: no video file \(\.mp4, .*\) in the folder .*tests"),
        ({"clips": []}, "clips is empty"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make(**{"task": "walker_walk", **arguments})


@pytest.mark.parametrize("clips", [["a.mp4"], 5, iter([])])
def test_invalid_clips_are_named(clips: Any) -> None:
    with pytest.raises(InputTypeError, match="clips must be a folder of videos or a sequence of clips"):
        make("walker_walk", clips=clips)


@pytest.mark.parametrize("colors", [5, [{"self_rgb": [0, 0, 0]}], Colors()])
def test_invalid_colours_are_named(colors: Any) -> None:
    with pytest.raises(InputTypeError, match=r"colors must be a file, a folder .* or a sequence of Colors, not "):
        make("walker_walk", setting="color_hard", colors=colors)


@pytest.mark.parametrize("camera", ["sdie", 7, 1.5, True])
def test_a_wrong_camera_leaves_nothing_open(camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Scene, "close", lambda self: closed.append(self))
    with pytest.raises((InputError, InputTypeError), match="camera"):
        make("pendulum_swingup", camera=camera)
    assert len(closed) == 1


def test_a_size_that_cannot_be_rendered_is_named() -> None:
    env = make("pendulum_swingup", size=(100_000, 8))
    with pytest.raises(RenderingError, match=r"size is 100000×8, which OpenGL cannot render here \(") as caught:
        env.reset()
    assert "Debian" not in str(caught.value)
    env.close()


@pytest.mark.parametrize("arguments", [{"size": "84"}, {"frame_stack": 3.0}, {"action_repeat": True}])
def test_an_argument_that_is_no_whole_number_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputTypeError, match=f"{next(iter(arguments))} must be a whole number, not"):
        make("walker_walk", **arguments)


def test_only_images_of_environments_are_stacked() -> None:
    with pytest.raises(InputTypeError, match="env must be an environment of gymnasium or dm_env, not str"):
        stack("walker_walk", 3)
    with pytest.raises(InputError, match=r"must be \(H, W, C\) uint8 pictures to be stacked, they are Box"):
        stack(gymnasium.make("Pendulum-v1"), 3)
    env = make("pendulum_swingup", size=8, frame_stack=None)
    with pytest.raises(InputError, match="frames must be at least 1, not 0"):
        stack(env, 0)
    env.close()


@pytest.mark.parametrize(
    ("action", "complaint"), [(np.zeros(5), r"shape \(5,\), this task takes \(6,\)"), ([np.nan] * 6, "not finite")]
)
def test_a_bad_action_is_refused_and_the_episode_goes_on(action: Any, complaint: str) -> None:
    env = make("walker_walk", size=8, frame_stack=None)
    env.reset()
    with pytest.raises(InputError, match=complaint):
        env.step(action)
    assert env.step(np.zeros(6))[0].shape == (8, 8, 3)
    env.close()


def test_a_closed_environment_says_so() -> None:
    env = make("walker_walk", size=8, frame_stack=None)
    with pytest.raises(SamgError, match=r"call reset\(\) first"):
        env.render()
    env.reset()
    env.close()
    env.close()
    for use in (env.reset, lambda: env.reset(seed=3), lambda: env.step(np.zeros(6))):
        with pytest.raises(SamgError, match="walker_walk is closed"):
            use()


BUILDERS = [partial(make, "pendulum_swingup", setting="color_hard", size=16, seed=seed) for seed in (0, 1)]


def test_environments_in_other_processes_give_the_same_frames() -> None:
    vector = gymnasium.vector.AsyncVectorEnv(BUILDERS, context="forkserver")
    singles = [built() for built in BUILDERS]
    actions = np.array([[1.0], [-1.0]], np.float32)
    for _ in range(2):  # episodes
        observations, _ = vector.reset()
        np.testing.assert_array_equal(observations, [each.reset()[0] for each in singles])
        observations, *_ = vector.step(actions)
        np.testing.assert_array_equal(observations, [each.step(a)[0] for each, a in zip(singles, actions, strict=True)])
    assert observations.shape == (2, 9, 16, 16)
    vector.close()
    for each in singles:
        each.close()


@pytest.mark.filterwarnings("ignore:.*ERROR.*:UserWarning")
def test_a_fork_of_a_rendering_process_says_what_to_do_instead() -> None:
    single = make("pendulum_swingup", size=8)
    single.reset()
    vector = gymnasium.vector.AsyncVectorEnv(BUILDERS, context="fork")
    with pytest.raises(RenderingError, match=r'forked from one that renders already: .*context="spawn"'):
        vector.reset()
    vector.close()
    assert single.step([0.0])[0].shape == (9, 8, 8)
    single.close()


class TestFitted:
    """``mask="fitted"``: with the bundle that ships for the task, a synthetic one here."""

    @pytest.fixture(autouse=True)
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_fitted_bundle(tmp_path / "walker_walk")
        monkeypatch.setattr(zoo, "BUNDLES", tmp_path)

    @pytest.mark.parametrize("api", ["gymnasium", "dm_env"])
    def test_images_are_masked(self, api: str) -> None:
        options: Any = {"setting": "video_hard", "size": 48, "frame_stack": 2, "seed": 3, "api": api}
        with (
            closing(envs.make("walker_walk", **options)) as plain,
            closing(envs.make("walker_walk", mask="fitted", **options)) as masked,
        ):
            if api == "gymnasium":
                frame, shown = plain.reset()[0], masked.reset()[0]
            else:
                frame, shown = plain.reset().observation["pixels"], masked.reset().observation["pixels"]
        assert shown.shape == frame.shape == (6, 48, 48)
        assert (shown == 0).mean() > (frame == 0).mean()
        np.testing.assert_array_equal(shown[shown != 0], frame[shown != 0])

    def test_a_task_without_one(self) -> None:
        with pytest.raises(BundleError, match="no fitted bundle ships for hopper_stand: make one with samg-fast fit"):
            envs.make("hopper_stand", mask="fitted")

    def test_another_word(self) -> None:
        with pytest.raises(InputError, match="mask must be 'fitted' or None, not 'tiny'"):
            envs.make("walker_walk", mask="tiny")
