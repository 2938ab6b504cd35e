"""Rendering and its ground truth: exact at edges, and independent of other renderers, threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast.envs.dmc import LiveTask
from samg_fast.envs.rendering import KIND_FLOOR, KIND_MOVING, KIND_SKY, KIND_STATIC, SceneRenderer
from samg_fast.errors import RenderingError
from support.rendering import needs_rendering

pytestmark = needs_rendering

# Objects of one flat colour each, seen from above: a capsule that moves, a box that cannot, a plane and a terrain.
SCENE = """
<mujoco>
  <visual>
    <quality offsamples="{samples}"/>
    <headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/>
  </visual>
  <asset><hfield name="hills" nrow="9" ncol="9" size=".4 .4 .2 .1"/></asset>
  <worldbody>
    <camera name="above" pos="0 0 3"/>
    <geom type="plane" size=".7 .3 .1" pos="0 -.9 0" rgba="0 1 0 1"/>
    <geom type="hfield" hfield="hills" pos=".8 .8 0" rgba="0 1 0 1"/>
    <geom type="box" size=".3 .4 .1" pos="-.7 .6 0" euler="0 0 31" rgba="0 0 1 1"/>
    <body pos=".1 .1 .4"><freejoint/><geom type="capsule" size=".11" fromto="-.6 -.2 0 .5 .3 0" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>
"""
COLOURS = {KIND_SKY: (0, 0, 0), KIND_FLOOR: (0, 255, 0), KIND_STATIC: (0, 0, 255), KIND_MOVING: (255, 0, 0)}


def flat_scene(samples: int) -> tuple[Any, Any]:
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE.format(samples=samples))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture
def live() -> Iterator[LiveTask]:
    with LiveTask("walker_walk", size=24) as opened:
        opened.reset()
        yield opened


def test_ground_truth_matches_the_image_to_the_pixel() -> None:
    model, data = flat_scene(samples=0)
    with SceneRenderer(model, (90, 84)) as renderer:
        rendered = renderer.render(data, "above")
    for kind, colour in COLOURS.items():
        assert (rendered.kind == kind).sum() > 50
        np.testing.assert_array_equal((rendered.rgb == colour).all(axis=-1), rendered.kind == kind)
    np.testing.assert_array_equal(rendered.mask, rendered.body == 1)
    np.testing.assert_array_equal(rendered.kind == KIND_SKY, rendered.body == -1)


def test_with_antialiasing_a_pixel_belongs_to_what_covers_half_of_it() -> None:
    model, data = flat_scene(samples=4)
    with SceneRenderer(model, (90, 84)) as renderer:
        rendered = renderer.render(data, "above")
    share = rendered.rgb[..., 1] / 255  # only the floor is green
    floor = rendered.kind == KIND_FLOOR
    beside = floor | (rendered.kind == KIND_SKY)
    assert share[floor].min() >= 0.49
    assert share[beside & ~floor].max() <= 0.51
    assert ((share > 0.1) & (share < 0.9)).any()


def test_ground_truth_is_of_the_last_image_even_if_the_state_changed() -> None:
    model, data = flat_scene(samples=0)
    with SceneRenderer(model, (40, 40)) as renderer:
        at_once = renderer.render(data)
        renderer.draw(data)
        data.xpos[:] += 1.0
        data.geom_xpos[:] += 1.0
        body, kind = renderer.truth()
    np.testing.assert_array_equal(body, at_once.body)
    np.testing.assert_array_equal(kind, at_once.kind)


def test_a_skin_moves_with_its_bones() -> None:
    with LiveTask("dog_stand", size=40) as dog:  # only the dog's skin is visible
        frame = dog.reset()
        mask = dog.mask
    assert 0.05 < mask.mean() < 0.5
    assert np.abs(frame[mask].mean(axis=0) - frame[~mask].mean(axis=0)).max() > 50


def test_closing_a_renderer_does_not_affect_others() -> None:
    def rollout(disturbed: bool) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
        frames, masks = [], []
        with LiveTask("cheetah_run", "color_hard", 24, seed=1) as watched:
            for turn in range(3):
                # In every turn another task is opened, repainted and closed between two frames of the watched one.
                frames.append(watched.reset() if turn == 1 else watched.step())
                masks.append(watched.mask)
                if disturbed:
                    with LiveTask("walker_walk", "color_hard", 32, seed=turn) as other:
                        other.reset()
                        other.reset()
        return frames, masks

    for disturbed, alone in zip(rollout(True), rollout(False), strict=True):
        np.testing.assert_array_equal(disturbed, alone)


def test_dm_control_can_render_in_between(live: LiveTask) -> None:
    physics = live.environment.physics
    for _ in range(2):
        frame = live.step()
        np.testing.assert_array_equal(physics.render(24, 24, camera_id=0), frame)


def test_threads_may_have_their_own_scenes_or_take_turns(live: LiveTask) -> None:
    def rollout(seed: int, into: dict[int, NDArray[np.uint8]]) -> None:
        with LiveTask("pendulum_swingup", "video_hard", 16, seed=seed) as own:
            into[seed] = np.stack([own.step() for _ in range(4)])

    alone: dict[int, NDArray[np.uint8]] = {}
    beside: dict[int, NDArray[np.uint8]] = {}
    threads = [Thread(target=rollout, args=(seed, beside)) for seed in range(2)]
    threads.append(Thread(target=live.step))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(2):
        rollout(seed, alone)
        np.testing.assert_array_equal(beside[seed], alone[seed])
    frame = live.look()  # after another thread's step, seen from this one
    np.testing.assert_array_equal(live.environment.physics.render(24, 24, camera_id=0), frame)


def test_a_context_in_use_on_another_thread_is_reported(live: LiveTask, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = live._renderer
    assert renderer is not None
    with renderer._current():  # while this thread renders
        said: list[str] = []

        def intrude() -> None:
            try:
                live.look()
            except RenderingError as error:
                said.append(str(error))

        thread = Thread(target=intrude)
        thread.start()
        thread.join()
    assert said == ["this OpenGL context is in use on another thread: threads must take turns"]
    assert live.look().shape == (24, 24, 3)


def test_a_task_that_is_never_closed_prints_nothing_at_exit() -> None:
    code = """
from samg_fast.envs.dmc import LiveTask
live = LiveTask("pendulum_swingup", size=8)
live.reset()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")
    assert "rror" not in run.stderr


@pytest.mark.parametrize("first", ["mujoco", "dm_control.suite", "gymnasium_robotics"])
def test_earlier_imports_of_mujoco_do_not_matter(first: str) -> None:
    """MuJoCo chooses its OpenGL at import; without MUJOCO_GL it chooses one that needs a display."""
    if find_spec(first.partition(".")[0]) is None:
        pytest.skip(f"{first} is not installed")
    code = f"""
import samg_fast, {first}
one, other = (samg_fast.envs.make("cartpole_balance", size=16, seed=0, api="dm_env") for _ in range(2))
pictures = [env.reset().observation["pixels"] for env in (one, other)]
one.close()
assert (pictures[0] == pictures[1]).all() and pictures[0].any()
other.step(other.action_spec().minimum)
other.close()
"""
    chosen = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
