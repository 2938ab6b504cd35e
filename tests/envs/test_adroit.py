"""The Adroit hands: the same settings, ground truth and seeds as the suite's tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samg_fast.envs import ADROIT, SETTINGS, make
from samg_fast.envs.dmc import LiveTask
from samg_fast.envs.painting import SceneColors
from samg_fast.envs.rendering import KIND_FLOOR, KIND_MOVING, KIND_SKY
from samg_fast.envs.settings import Colors
from samg_fast.envs.simulation import open_simulation
from samg_fast.envs.tasks import find_task
from support.broken_opengl import rendering_error
from support.clips import Flat
from support.rendering import needs_rendering

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")

pytestmark = needs_rendering

REPLACED = {"video_easy": (KIND_SKY,), "video_hard": (KIND_SKY, KIND_FLOOR)}
PINK = (255, 0, 255)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("task", ADROIT)
def test_hands_in_every_setting(task: str, setting: str) -> None:
    env = make(task, setting=setting, size=32, frame_stack=None, clips=[Flat("pink", PINK)], ground_truth=True, seed=2)
    env.reset()
    frame, reward, terminated, truncated, after = env.step(np.full(env.action_space.shape, 0.1))
    kind = env.unwrapped.scene.rendered.kind
    behind = np.isin(kind, REPLACED.get(setting, ()))
    np.testing.assert_array_equal((frame == PINK).all(axis=-1), behind)
    assert behind.any() == (setting in REPLACED)
    np.testing.assert_array_equal(after["mask"], kind == KIND_MOVING)
    assert 0.01 < after["mask"].mean() < 0.3
    assert (np.isfinite(reward), terminated, truncated, after["success"]) == (True, False, False, False)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [84, 160, 224])
@pytest.mark.parametrize("task", ADROIT)
def test_seeds_reproduce_to_the_pixel_at_the_paper_s_sizes(task: str, size: int) -> None:
    env = make(task, setting="video_hard", size=size, ground_truth=True, seed=2)
    first, info = env.reset()
    assert first.shape == (9, size, size)
    assert (env.reset()[0] != first).any()
    again, repeated = env.reset(seed=2)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(repeated["mask"], info["mask"])
    env.close()


def test_rewards_are_gymnasium_robotics_own_and_summed() -> None:
    env = make("adroit_door", size=8, action_repeat=3, seed=7)
    original = gymnasium.make("AdroitHandDoor-v1", disable_env_checker=True)
    env.reset()
    original.reset(seed=7)
    action = np.full(original.action_space.shape, 0.25, np.float32)
    for _ in range(2):
        expected = sum(float(original.step(action)[1]) for _ in range(3))
        assert env.step(action)[1] == pytest.approx(expected, rel=1e-9)
    env.close()
    original.close()


def test_the_time_limit_truncates_and_stops_the_action_repeat() -> None:
    env = make("adroit_hammer", size=8, action_repeat=150)
    env.reset()
    action = np.zeros(env.action_space.shape)
    ends = [env.step(action)[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]
    simulation = env.unwrapped.scene.simulation
    assert simulation.data.time == pytest.approx(200 * simulation.timestep)
    env.close()


def test_success_is_in_the_info() -> None:
    env = make("adroit_door", size=8)
    env.reset()
    inside = env.unwrapped.scene.environment.unwrapped
    inside.data.qpos[inside.door_hinge_addrs] = 1.5
    *_, info = env.step(np.zeros(env.action_space.shape))
    assert info == {"success": True}
    env.close()


def test_the_pen_s_mask_has_the_whole_hand_and_the_target_pen_and_the_table_is_floor() -> None:
    with LiveTask("adroit_pen", size=64) as live:
        live.reset()
        model, rendered = live.simulation.model, live.rendered
        seen = {name: rendered.kind[rendered.body == model.body(name).id] for name in ("forearm", "target", "table")}
    assert all(kinds.size for kinds in seen.values())
    assert {name: set(kinds) for name, kinds in seen.items()} == {
        "forearm": {KIND_MOVING},
        "target": {KIND_MOVING},
        "table": {KIND_FLOOR},
    }


def test_cameras_can_be_chosen_and_a_reference_uses_the_same() -> None:
    with LiveTask("adroit_hammer", size=48) as far, LiveTask("adroit_hammer", size=48, camera="fixed") as near:
        far.reset()
        near.reset()
        for mask in (near.mask, near.reference()[1]):
            assert mask.mean() > 2 * far.mask.mean()


def test_colours_shift_hand_table_and_floor_and_can_be_restored() -> None:
    simulation = open_simulation(find_task("adroit_pen"), 0)
    model = simulation.model
    textures, materials = model.tex_data.copy(), model.mat_rgba.copy()
    scene = SceneColors(model)
    scene.apply(Colors())
    # dm_control's own colours leave these scenes as they are.
    np.testing.assert_array_equal(model.tex_data, textures)
    np.testing.assert_allclose(model.mat_rgba, materials, atol=1e-7)
    scene.apply(Colors(grid_rgb1=(1.0, 0.0, 0.0), self_rgb=(0.7, 0.4, 0.3), skybox_rgb=(0.4, 0.6, 0.6)))
    for name, shift in (("MatViz", (0, -0.1, 0)), ("tablecube", (0, 0, -0.2))):
        index = model.material(name).id
        np.testing.assert_allclose(model.mat_rgba[index, :3], materials[index, :3] + shift, atol=1e-6)
    assert (model.tex_data != textures).any()
    scene.restore()
    np.testing.assert_array_equal(model.tex_data, textures)
    np.testing.assert_array_equal(model.mat_rgba, materials)
    simulation.close()


def test_colours_show_in_the_frame() -> None:
    seen: list[Any] = []
    for setting in ("original", "color_hard"):
        with LiveTask("adroit_door", setting, 32) as live:
            seen.append((live.reset(), live.mask))
    (plain, mask), (painted, same) = seen
    np.testing.assert_array_equal(mask, same)
    changed = (plain != painted).any(axis=-1)
    assert changed[mask].any()
    assert changed[~mask].mean() > 0.5


def test_rendering_that_cannot_start_says_what_was_tried_and_what_to_install() -> None:
    said = rendering_error("samg_fast.envs", "make('adroit_pen', api='dm_env')", "egl")
    assert "rendering cannot start with MUJOCO_GL=egl" in said
    assert "libegl1" in said
    assert said.count("\n") == 1
