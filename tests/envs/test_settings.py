"""Compositing to the pixel; colours that are painted and restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast.envs.painting import SceneColors
from samg_fast.envs.rendering import KIND_FLOOR, KIND_MOVING, KIND_SKY, KIND_STATIC, Rendered
from samg_fast.envs.settings import (
    SETTINGS,
    Colors,
    check_setting,
    composite,
    load_colors,
    random_colors,
    resize_background,
)
from samg_fast.errors import FileError, InputError
from support.rendering import needs_rendering

REPLACED = {"video_easy": {KIND_SKY}, "video_hard": {KIND_SKY, KIND_FLOOR}}


@pytest.fixture
def scene() -> Rendered:
    """Return a render of noise, with every kind of pixel at random places."""
    random = np.random.default_rng(0)
    kind = random.integers(0, 4, (12, 10), dtype=np.uint8)
    assert set(np.unique(kind)) == {KIND_SKY, KIND_FLOOR, KIND_STATIC, KIND_MOVING}
    return Rendered(random.integers(0, 256, (12, 10, 3), dtype=np.uint8), np.zeros((12, 10), np.int32), kind)


@pytest.mark.parametrize("setting", SETTINGS)
def test_exactly_the_setting_s_pixels_are_replaced(scene: Rendered, setting: str) -> None:
    background = np.random.default_rng(1).integers(0, 256, scene.rgb.shape, dtype=np.uint8)
    before = scene.rgb.copy()
    frame = composite(scene, background, setting)
    for y, x in np.ndindex(scene.kind.shape):
        source = background if scene.kind[y, x] in REPLACED.get(setting, set()) else before
        assert (frame[y, x] == source[y, x]).all()
    assert frame.dtype == np.uint8
    frame[:] = 0
    np.testing.assert_array_equal(scene.rgb, before)


def test_a_background_of_another_size_is_resized(scene: Rendered) -> None:
    background = np.full((48, 64, 3), 77, np.uint8)
    frame = composite(scene, background, "video_hard")
    assert (frame[scene.kind <= KIND_FLOOR] == 77).all()


def test_resizing_is_bilinear_over_the_whole_image() -> None:
    ramp = np.repeat(np.linspace(0, 240, 16, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    resized = resize_background(ramp, (2, 8))
    assert resized.shape == (2, 8, 3)
    np.testing.assert_allclose(resized[0, 1:-1, 0], np.arange(24, 240, 32)[: 8 - 2] + 16, atol=1)
    assert resize_background(ramp, (4, 16)) is ramp


@pytest.mark.parametrize(
    "background", [None, np.zeros((12, 10), np.uint8), np.zeros((12, 10, 3)), np.zeros((12, 10, 4), np.uint8)]
)
def test_a_video_setting_needs_an_image(scene: Rendered, background: Any) -> None:
    with pytest.raises(InputError, match="background"):
        composite(scene, background, "video_easy")


def test_a_wrong_setting_gets_the_nearest(scene: Rendered) -> None:
    with pytest.raises(InputError, match="there is no setting 'video-hard': did you mean video_hard"):
        check_setting("video-hard")
    with pytest.raises(InputError, match="video_easy"):
        composite(scene, None, "video_easyy")


def test_colours_come_from_the_benchmark_s_json(tmp_path: Path) -> None:
    path = tmp_path / "color_easy.json"
    path.write_text(json.dumps([{"grid_rgb1": [0, 0.5, 1], "self_rgb": [0.25, 0.5, 0.75]}, {}]))
    first, second = load_colors(path)
    assert first == Colors(grid_rgb1=(0.0, 0.5, 1.0), self_rgb=(0.25, 0.5, 0.75))
    assert second == Colors()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON list with at least one"),
        ('{"grid_rgb1": [0, 0, 0]}', "not a JSON list"),
        ("[[1, 2, 3]]", "entry 0 .* is not an object"),
        ('[{"grid_rgb3": [0, 0, 0]}]', "'grid_rgb3': did you mean grid_rgb"),
        ('[{}, {"self_rgb": [0, 0, 255]}]', "entry 1 .*self_rgb must be three numbers between 0 and 1"),
        ('[{"self_rgb": [0, 0]}]', "self_rgb must be three numbers"),
        ('[{"self_rgb": "red"}]', "self_rgb must be three numbers"),
        ('[{"self_rgb": [0, 0, NaN]}]', "self_rgb must be three numbers"),
    ],
)
def test_bad_colours_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "colors.json"
    path.write_text(text)
    with pytest.raises(FileError, match=complaint):
        load_colors(path)


def test_a_missing_colour_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.json: No such file"):
        load_colors(tmp_path / "none.json")


@pytest.mark.parametrize(("setting", "spread"), [("color_easy", 0.1), ("color_hard", 0.2)])
def test_random_colours_are_centred_on_dm_control_s(setting: str, spread: float) -> None:
    random = np.random.default_rng(0)
    drawn = [random_colors(setting, random) for _ in range(500)]
    green = np.array([colors.skybox_rgb[1] for colors in drawn])
    assert abs(green.mean() - 0.6) < 0.03
    assert abs(green.std() - spread) < 0.03
    for colors in drawn:
        channels = np.array([colors.grid_rgb1, colors.grid_rgb2, colors.skybox_rgb, colors.self_rgb])
        assert 0 <= channels.min() <= channels.max() <= 1
    assert random_colors(setting, np.random.default_rng(3)) == random_colors(setting, np.random.default_rng(3))


def test_random_colours_are_for_colour_settings() -> None:
    with pytest.raises(InputError, match="color_easy and color_hard"):
        random_colors("video_hard", np.random.default_rng(0))


@needs_rendering
@pytest.mark.parametrize("domain", ["walker_walk", "fish_swim", "manipulator_bring_ball"])
def test_painting_matches_the_compiler_s_result_and_can_be_restored(domain: str) -> None:
    from dm_control import suite

    from samg_fast.envs.tasks import TASKS

    model = suite.load(TASKS[domain].domain, TASKS[domain].task).physics.model.ptr
    textures, materials = model.tex_data.copy(), model.mat_rgba.copy()
    scene = SceneColors(model)
    scene.apply(Colors())
    # dm_control's own colours give dm_control's own textures, bit for bit, so other colours can be trusted too.
    np.testing.assert_array_equal(model.tex_data, textures)
    np.testing.assert_array_equal(model.mat_rgba, materials)
    scene.apply(Colors(grid_rgb1=(1.0, 0.0, 0.0), skybox_rgb=(0.0, 1.0, 0.0), self_rgb=(0.0, 0.0, 1.0)))
    assert (model.tex_data != textures).any()
    assert [0.0, 0.0, 1.0, 1.0] in model.mat_rgba.tolist()
    scene.restore()
    np.testing.assert_array_equal(model.tex_data, textures)
    np.testing.assert_array_equal(model.mat_rgba, materials)


@needs_rendering
def test_a_model_without_the_painted_names_is_unchanged() -> None:
    import mujoco

    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    scene = SceneColors(model)
    scene.apply(Colors())
    scene.restore()
