"""`LiveTask`: reproducible frames with ground truth, episodes, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast.envs.dmc import FIRST_PROCEDURAL_SEED, LiveTask, reference
from samg_fast.envs.rendering import KIND_FLOOR, KIND_SKY, SceneRenderer
from samg_fast.envs.settings import SETTINGS, Colors
from samg_fast.envs.tasks import EIGHT, UNSEEN, Task
from samg_fast.errors import InputError, InputTypeError, SamgError
from support.broken_opengl import rendering_error
from support.rendering import needs_rendering

pytestmark = needs_rendering


class Counter:
    """A clip of grey images; image t has the grey value start + t."""

    def __init__(self, name: str = "counter", start: int = 0) -> None:
        self.name, self.start = name, start

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Return image `t`."""
        return np.full((60, 80, 3), self.start + t, np.uint8)


def frames(live: LiveTask, steps: int) -> NDArray[np.uint8]:
    with live:
        return np.stack([live.reset(), *(live.step() for _ in range(steps))])


@pytest.mark.parametrize("setting", SETTINGS)
def test_seeds_reproduce_to_the_pixel(setting: str) -> None:
    first, second = (frames(LiveTask("pendulum_swingup", setting, 32, seed=3), 3) for _ in range(2))
    np.testing.assert_array_equal(second, first)


def test_every_setting_shows_the_same_motion() -> None:
    masks = []
    for setting in SETTINGS:
        with LiveTask("walker_walk", setting, 40, seed=1) as live:
            live.reset()
            live.skip(3)
            live.step()
            masks.append(live.mask)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize("name", EIGHT + UNSEEN)
def test_a_reference_shows_its_target(name: str) -> None:
    image, mask = reference(name, (36, 48))
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((36, 48, 3), np.uint8, (36, 48), np.bool_)
    assert 4 <= np.count_nonzero(mask) < mask.size / 2


@pytest.mark.parametrize(("setting", "kinds"), [("video_easy", [KIND_SKY]), ("video_hard", [KIND_SKY, KIND_FLOOR])])
def test_a_clip_starts_with_the_episode_and_moves_with_the_steps(setting: str, kinds: list[int]) -> None:
    with LiveTask("finger_spin", setting, 40, clips=[Counter()]) as live:
        for shown, look in [(0, live.reset), (1, live.step), (2, live.step)]:
            frame = look()
            behind = np.isin(live.rendered.kind, kinds)
            assert (frame[behind] == shown).all()
            np.testing.assert_array_equal(frame[~behind], live.clean[~behind])
        live.skip(4)
        assert (live.step()[live.rendered.kind == KIND_SKY] == 7).all()
        assert (live.reset()[live.rendered.kind == KIND_SKY] == 0).all()
        assert live.clip_name == "counter"


def test_episodes_draw_their_clips() -> None:
    clips = [Counter(f"clip{number}", 20 * number) for number in range(10)]
    with LiveTask("pendulum_swingup", "video_hard", 16, clips=clips) as live:
        drawn = []
        for _ in range(6):
            live.reset()
            drawn.append(live.clip_name)
    assert len(set(drawn)) > 2


def test_procedural_clips_use_no_training_seeds() -> None:
    with LiveTask("pendulum_swingup", "video_hard", 16) as live:
        live.reset()
        assert live.clip_name is not None
        assert int(live.clip_name.rsplit("-", 1)[1]) >= FIRST_PROCEDURAL_SEED


def test_colours_repaint_every_episode_and_do_not_change_the_mask() -> None:
    green = (Colors(skybox_rgb=(0.0, 1.0, 0.0), self_rgb=(1.0, 0.0, 0.0)),)
    with (
        LiveTask("walker_walk", "original", 40) as plain,
        LiveTask("walker_walk", "color_hard", 40, colors=green) as painted,
    ):
        before, after = plain.reset(), painted.reset()
        np.testing.assert_array_equal(plain.mask, painted.mask)
        assert (after[painted.mask][:, 0] > after[painted.mask][:, 1]).mean() > 0.9
        sky = painted.rendered.kind == KIND_SKY
        assert after[sky][:, 1].mean() > before[sky][:, 1].mean()
        assert after[sky][:, 0].mean() < before[sky][:, 0].mean()


def test_random_colours_differ_between_episodes_but_do_not_change_references() -> None:
    with LiveTask("walker_walk", "color_easy", 24) as live:
        first, second = live.reset(), live.reset()
        assert (first != second).any()
        image, _ = live.reference()
    np.testing.assert_array_equal(image, reference("walker_walk", 24, 500_000_000)[0])


def test_a_reference_does_not_affect_the_episode() -> None:
    undisturbed = frames(LiveTask("hopper_stand", "video_hard", 24, seed=5), 2)
    with LiveTask("hopper_stand", "video_hard", 24, seed=5) as live:
        seen = [live.reset()]
        image, mask = live.reference()
        seen += [live.step(), live.step()]
    np.testing.assert_array_equal(np.stack(seen), undisturbed)
    assert (image != undisturbed[0]).any()
    assert mask.any()


def test_an_action_is_repeated() -> None:
    action = np.ones(6)
    with LiveTask("cheetah_run", size=24, action_repeat=3) as repeated, LiveTask("cheetah_run", size=24) as single:
        repeated.reset()
        single.reset()
        last = repeated.step(action)
        for _ in range(3):
            single.environment.step(action)
        np.testing.assert_array_equal(repeated.environment.physics.data.qpos, single.environment.physics.data.qpos)
        assert last.shape == (24, 24, 3)


def test_an_episode_ends_and_the_next_begins() -> None:
    with LiveTask("pendulum_swingup", "video_hard", 16, clips=[Counter()], action_repeat=600) as live:
        assert live.ended
        live.step()
        assert not live.ended
        live.skip(2)
        assert live.ended
        assert (live.step()[live.rendered.kind == KIND_SKY] == 0).all()
        assert not live.ended


def test_a_new_terrain_is_rendered() -> None:
    with LiveTask("quadruped_escape", size=48) as live:
        live.reset()
        live.reset()
        shown = live.clean
        physics = live.environment.physics
        with SceneRenderer(physics.model.ptr, (48, 48)) as fresh:
            rendered = fresh.render(physics.data.ptr, live.task.camera)
        np.testing.assert_array_equal(rendered.rgb, shown)
        assert set(rendered.kind[rendered.body == 0]) == {KIND_FLOOR}  # the terrain is the world's


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        (np.zeros(5), r"shape \(5,\), this task takes \(6,\)"),
        ([np.nan] * 6, "not finite"),
        ("left", "must be 6 numbers"),
    ],
)
def test_a_bad_action_is_refused_and_the_task_goes_on(action: Any, complaint: str) -> None:
    with LiveTask("walker_walk", size=16) as live:
        for _ in range(2):  # before the first reset, and after
            with pytest.raises(InputError, match=complaint):
                live.step(action)
            live.reset()
        assert live.step(np.zeros(6)).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": "walker_wok"}, "did you mean walker_"),
        ({"setting": "video"}, "did you mean video_"),
        ({"task": Task("walker", "fly")}, "there is no task 'walker_fly': did you mean walker_"),
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"size": (84, 84, 3)}, "size must be one number, or height and width"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "seed must be"),
        ({"action_repeat": 0}, "action_repeat must be"),
        ({"clips": []}, "clips is empty"),
        ({"colors": ()}, "colors is empty"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        LiveTask(**{"task": "walker_walk", **arguments})


@pytest.mark.parametrize("argument", ["size", "seed", "action_repeat", "camera"])
def test_an_argument_that_is_no_whole_number_is_named(argument: str) -> None:
    with pytest.raises(InputTypeError, match=f"{argument} must be a whole number, not"):
        LiveTask("pendulum_swingup", **{argument: 1.5})


def test_after_a_failed_reset_no_episode_runs() -> None:
    clips = [Counter()]
    with LiveTask("pendulum_swingup", "video_hard", 8, clips=clips) as live:
        live.reset()
        clips.clear()
        with pytest.raises(ValueError, match="high <= 0"):
            live.reset()
        assert live.ended
        clips.append(Counter())
        assert live.step()[0, 0, 0] == 0  # the first image of a new episode


def test_there_is_no_frame_before_the_first_reset_or_after_closing() -> None:
    live = LiveTask("cartpole_swingup", size=16)
    with pytest.raises(SamgError, match=r"cartpole_swingup has not been looked at yet: call reset\(\) first"):
        _ = live.mask
    live.reset()
    live.close()
    live.close()
    for use in (live.reset, live.step, lambda: live.environment):
        with pytest.raises(SamgError, match="cartpole_swingup is closed"):
            use()


def test_a_frame_may_be_larger_than_the_model_s_own_buffer_size_which_is_restored() -> None:
    with LiveTask("cartpole_swingup", size=(500, 700)) as live:
        assert live.reset().shape == (500, 700, 3)
        visual = live.simulation.model.vis.global_
        assert (visual.offheight, visual.offwidth) == (480, 640)


@pytest.mark.parametrize("broken", ["egl", "nonsense"])
def test_rendering_that_cannot_start_says_what_was_tried_and_what_to_install(broken: str) -> None:
    said = rendering_error("samg_fast.envs.dmc", "LiveTask('walker_walk')", broken)
    assert f"rendering cannot start with MUJOCO_GL={broken}" in said
    assert "libegl1" in said
    assert said.count("\n") == 1
