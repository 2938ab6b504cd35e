"""The accuracy benchmark: figures of known masks, what its frames have in common, and that it runs from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import heatmap
from benchmarks.accuracy.frames import Plan, TaskFrames, View, load_backgrounds, plan_views, render
from benchmarks.accuracy.report import Results, Scores, common_grid, heat_map, sheet, summary
from samg_fast.envs import make
from samg_fast.envs.dmc import LiveTask
from samg_fast.envs.tasks import ADROIT, EIGHT
from samg_fast.errors import InputError
from samg_fast.media.drawing import heat_map as colours_of
from support.clips import write_video
from support.fake_segmenter import FakeSegmenter, Masks, load_fakes, square, white
from support.rendering import needs_rendering

WALKER = View("walker_walk", 84)


@pytest.fixture
def shown() -> TaskFrames:
    """Return frames of which `white` finds 16, 4, 0, 0 and 25 pixels, of 16, 16, 16, 0 and 0."""
    pairs = [square(4), square(2), square(0), square(0, seen=False), square(5, seen=False)]
    frames, truths = (np.stack(part) for part in zip(*pairs, strict=True))
    return TaskFrames(frames[0], truths[0], {"video_hard": (frames, truths)})


@pytest.fixture
def fake_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `samg_fast.load` open fakes."""
    load_fakes(monkeypatch)


def of(*ious: float) -> dict[str, Scores]:
    """Return scores of a frame for each IoU."""
    return {"video_hard": Scores(np.array(ious), np.ones((len(ious), 10, 10), bool), 0)}


def test_scores_are_iou_per_frame_and_an_absent_target_is_found_or_not(shown: TaskFrames) -> None:
    score = accuracy.evaluate(FakeSegmenter(white), shown)["video_hard"]  # type: ignore[arg-type]
    np.testing.assert_allclose(score.iou, [1.0, 4 / 16, 0.0, 1.0, 0.0])
    assert score.absent == 2
    assert score.worst == 2
    assert score.typical == 1
    figures = summary({WALKER: {"video_hard": score}})
    assert figures["views"]["walker_walk@84"]["video_hard"] == {"iou": 0.45, "iou_min": 0.0, "frames": 5, "absent": 2}
    assert figures["means"] == {"paper": {"video_hard": 0.45}}


def test_a_task_is_identified_from_all_its_references(shown: TaskFrames) -> None:
    more = [square(3), square(2)]
    segmenter = FakeSegmenter(white)
    accuracy.evaluate(segmenter, replace(shown, further=more))  # type: ignore[arg-type]
    images, masks = segmenter.references
    assert [int(white(image).sum()) for image in images] == [16, 9, 4]
    assert all(
        mask is wanted for mask, wanted in zip(masks, (shown.reference_mask, *(each[1] for each in more)), strict=True)
    )
    accuracy.evaluate(segmenter, shown)  # type: ignore[arg-type]
    (image,), (mask,) = segmenter.references
    assert image is shown.reference
    assert mask is shown.reference_mask


def test_each_task_counts_once_in_the_mean_of_its_group(shown: TaskFrames) -> None:
    results = {
        WALKER: accuracy.evaluate(FakeSegmenter(white), shown),  # type: ignore[arg-type]
        View("cheetah_run", 84): of(1.0, 1.0),
        View("adroit_pen", 84): of(0.25, 0.75),
        View("adroit_pen", 160): of(0.75, 0.75),
        View("adroit_door", 84): of(0.75, 0.75),
        View("reacher_easy", 84): of(1.0, 1.0),
        View("dog_run", 84): of(1.0, 1.0),
    }
    means = summary(results)["means"]
    assert {group: figures["video_hard"] for group, figures in means.items()} == {
        "paper": 0.725,
        "hands": 0.625,  # of the pen at the first of its sizes
        "unseen": 1.0,
        "other": 1.0,
    }


def seen_at(side: int, truth: Masks, found: Masks) -> tuple[TaskFrames, dict[str, Scores]]:
    """Return one frame at a size, with its ground truth and what was found in it."""
    frame = np.zeros((side, side, 3), np.uint8)
    frames = TaskFrames(frame, truth, {"original": (frame[None], truth[None])})
    return frames, {"original": Scores(np.zeros(1), found[None], 0)}


def test_masks_of_several_sizes_are_compared_on_the_smallest_grid() -> None:
    small, large = np.zeros((4, 4), np.bool_), np.zeros((8, 8), np.bool_)
    small[:2, :2] = True  # four pixels
    large[:4, :4] = True  # the same square
    lost = large.copy()
    lost[2:4, 2:3] = False  # half of one of the four, which is still found
    missed = large.copy()
    missed[1:4, 2:4] = False  # one of the four, and half of another
    shown = {
        View("adroit_pen", 8): seen_at(8, large, lost),
        View("adroit_pen", 4): seen_at(4, small, small),
        View("walker_walk", 4): seen_at(4, small, small),
    }
    rendered = {view: frames for view, (frames, _) in shown.items()}
    results: Results = {view: scores for view, (_, scores) in shown.items()}
    assert common_grid(results, rendered) == {
        "adroit_pen@8": {"original": 1.0, "truth": 1.0},
        "adroit_pen@4": {"original": 1.0, "truth": 1.0},
    }
    rendered[View("adroit_pen", 8)], results[View("adroit_pen", 8)] = seen_at(8, missed, missed)
    assert common_grid(results, rendered)["adroit_pen@8"] == {"original": 0.75, "truth": 0.75}
    only = WALKER._replace(size=4)
    assert common_grid({only: results[only]}, rendered) == {}


def centre(drawn: NDArray[np.uint8], colour: NDArray[np.uint8]) -> tuple[float, float]:
    """Return x and y of the middle of a colour's pixels in a heat map's cells."""
    y, x = np.nonzero((drawn == colour).all(axis=-1))
    cells = x < drawn.shape[1] - 90  # the scale has all the colours too
    assert cells.sum() > 1000
    return float(x[cells].mean()), float(y[cells].mean())


def test_a_heat_map_has_its_colours_where_its_figures_are() -> None:
    values = np.array([[0.1, 0.9], [0.5, 0.3]])
    drawn = heatmap.draw("title", ["left", "right"], [{"above": [0.1, 0.9]}, {"below": [0.5, 0.3]}])
    (low, high), (half, third) = [[centre(drawn, cell) for cell in row] for row in colours_of(values, low=0, high=1)]
    assert low[0] == pytest.approx(half[0], abs=6)  # the letters in the cells are of other colours
    assert high[0] == pytest.approx(third[0], abs=6)
    assert low[0] < high[0] - 80
    assert low[1] == pytest.approx(high[1], abs=6)
    assert low[1] < half[1] - 25


def test_the_heat_map_shows_the_means_of_the_frames() -> None:
    drawn = heat_map("fake", {WALKER: of(0.25, 0.75), View("cheetah_run", 84): of(1.0, 1.0)})
    rows = [centre(drawn, colour)[1] for colour in colours_of([0.5, 1.0, 0.75], low=0, high=1)[None][0]]
    assert rows == sorted(rows)


def test_the_picture_shows_typical_and_worst_frames_of_every_size(shown: TaskFrames) -> None:
    results: Results = {WALKER: accuracy.evaluate(FakeSegmenter(white), shown)}  # type: ignore[arg-type]
    one = sheet(results, {WALKER: shown})
    assert one.dtype == np.uint8
    assert one.shape[1] > 7 * 160
    both = sheet({**results, View("walker_walk", 10): results[WALKER]}, {WALKER: shown, View("walker_walk", 10): shown})
    assert both.shape[0] > 1.5 * one.shape[0]


def test_sizes_by_task() -> None:
    tasks = ["walker_walk", "adroit_pen", "walker_walk"]
    pen = [View("adroit_pen", side) for side in (84, 160, 224)]
    assert plan_views(tasks) == [WALKER, *pen]
    assert plan_views(["walker_walk"]) == [WALKER]
    assert plan_views(tasks, ["160"]) == [View("walker_walk", 160), View("adroit_pen", 160)]
    assert plan_views(tasks, ["24, 84", "24"])[:2] == [View("walker_walk", 24), WALKER]
    assert plan_views(tasks, ["adroit_pen=84,160", "adroit_pen=224"]) == [WALKER, *pen]
    assert str(pen[1]) == "adroit_pen@160"
    default = plan_views([*EIGHT, *ADROIT])
    assert len(default) == 13
    assert {view.task for view in default} == {*EIGHT, *ADROIT}


@pytest.mark.parametrize("size", ["", "84,", "7", "84.5", "-84", "adroit_pen=", "adroit_pen=84;160", "84="])
def test_a_malformed_size_gets_a_sentence(size: str) -> None:
    with pytest.raises(InputError, match=r"size must be sides in pixels.*such as 84|there is no task '84'"):
        plan_views(["adroit_pen"], [size])


def test_clips_of_the_benchmark_s_folders(tmp_path: Path) -> None:
    for setting in ("video_easy", "video_hard"):
        (tmp_path / setting).mkdir()
        for name in "ab":
            write_video(tmp_path / setting / f"{name}.mp4", range(0, 250, 50))
    plan = Plan(frames=1, stride=2)
    settings = ["original", "video_easy", "video_hard"]

    def named(names: list[str], folder: Path = tmp_path) -> dict[tuple[int, str], str]:
        films = load_backgrounds(folder, names, settings, [8, 16], plan)
        assert all(len({film.frame(t).tobytes() for t in range(5)}) == 3 for each in films.values() for film in each)
        assert all(film.frame(0).shape == (side, side, 3) for (side, _), each in films.items() for film in each)
        return {key: "".join(film.name for film in each) for key, each in films.items()}

    keys = [(side, setting) for setting in settings[1:] for side in (8, 16)]
    assert named([]) == dict.fromkeys(keys, "ab")
    assert named(["b"]) == dict.fromkeys(keys, "b")
    assert named(["video_easy/a", "video_hard/b"]) == dict(zip(keys, "aabb", strict=True))
    assert named(["a"], tmp_path / "video_easy") == dict.fromkeys(keys, "a")
    with pytest.raises(InputError, match="no name for video_easy among video_hard/b"):
        named(["video_hard/b"])
    with pytest.raises(InputError, match="other/b not in"):
        named(["other/b"])


@needs_rendering
@pytest.mark.usefixtures("fake_load")
def test_it_runs_from_end_to_end(tmp_path: Path) -> None:
    sheet, cells, out = tmp_path / "sheet.png", tmp_path / "cells.png", tmp_path / "accuracy.json"
    options = ["--tasks", "pendulum_swingup", "--episodes", "1", "--frames", "2", "--size", "24,48", "--precision"]
    options += [
        "fp32,bf16",
        "--settings",
        "original,color_easy",
        "--references",
        "2",
        "--json",
        str(out),
        "--picture",
        str(sheet),
        "--heatmap",
        str(cells),
    ]
    result = CliRunner().invoke(accuracy.app, options)
    assert result.exit_code == 0, result.output
    assert "Not measured: tiny, auto, bf16: this machine has no bf16" in result.output
    figures = json.loads(out.read_text())
    assert figures["results"][0]["views"]["pendulum_swingup@24"]["original"]["frames"] == 2
    assert figures["results"][0]["common_grid"]["pendulum_swingup@48"]["truth"] > 0.5
    assert figures["plan"]["references"] == 2
    assert figures["backgrounds"] == "procedural"
    assert Image.open(sheet).size[0] > 500
    assert Image.open(cells).size[0] > 500


@pytest.mark.usefixtures("fake_load")
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tasks", "walker_walkk"], "did you mean walker_walk"),
        (["--settings", ","], "settings is empty: there are original, "),
        (["--size", "84x84"], "size must be sides in pixels"),
        (["--tasks", "adroit_door", "--size", "adroit_pen=84"], "size: adroit_pen is not among the tasks"),
        (["--clips", "."], "no video file"),
        (["--precision", "bf16"], "this machine has no bf16"),
        (["--heatmap", "nowhere/map.png"], "there is no folder nowhere"),
        (["--picture", "frames.pong"], "cannot write frames.pong: a picture must end in .bmp, "),
        (
            ["--references", "3", "--reference-seed", "998"],
            "references of walker_walk have seeds 999 to 1000, but its episodes 1000 to 1002",
        ),
        (
            ["--references", "2", "--reference-seed", "1022"],
            "references of quadruped_walk have seeds 1023 to 1023, but its episodes 1021 to 1023",
        ),
    ],
)
def test_it_fails_in_one_line(
    options: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(accuracy.app, options)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


@needs_rendering
def test_settings_of_a_task_share_their_episodes_and_tasks_do_not() -> None:
    plan = Plan(episodes=2, frames=1, stride=2)
    task = View("pendulum_swingup", 16)
    first = render(task, ["original", "color_hard", "video_hard"], plan)
    (_, truth), *others = first.settings.values()
    for _, same in others:
        np.testing.assert_array_equal(same, truth)
    assert (first.settings["original"][0] != first.settings["video_hard"][0]).any()
    assert not set(plan.seeds("pendulum_swingup")) & set(plan.seeds("acrobot_swingup"))
    later = render(task, ["original"], replace(plan, seed=plan.seed + 1))
    np.testing.assert_array_equal(later.settings["original"][0][0], first.settings["original"][0][1])
    np.testing.assert_array_equal(later.reference, first.reference)


@needs_rendering
def test_the_pen_moves_alike_at_every_size() -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    views = plan_views(["adroit_pen"], ["84,168"])
    small, large = (render(view, ["original"], Plan(episodes=1, frames=3)).settings["original"][1] for view in views)
    assert (small[0] != small[2]).any()  # it does move
    for same, finer in zip(small, large, strict=True):
        # Nine of ten pixels have a fellow among the four of twice the size; a rim is drawn otherwise.
        fellow = finer.reshape(84, 2, 84, 2).any(axis=(1, 3))
        assert (same & fellow).sum() > 0.9 * same.sum()
        assert fellow.sum() < 1.5 * same.sum()


@needs_rendering
def test_frames_are_those_that_a_user_of_the_environments_gets() -> None:
    plan = Plan(episodes=1, frames=1, stride=1)
    rendered = render(View("pendulum_swingup", 16), ["original"], plan)
    env = make("pendulum_swingup", size=16, frame_stack=None, seed=plan.reference_seed, ground_truth=True, api="dm_env")
    seen = env.reset().observation
    env.close()
    np.testing.assert_array_equal(rendered.reference, seen["pixels"])
    np.testing.assert_array_equal(rendered.reference_mask, seen["mask"])


@needs_rendering
def test_further_references_are_clean_and_leave_the_frames_alone() -> None:
    plan = Plan(episodes=1, frames=2, stride=4)
    view = View("walker_walk", 24)
    one = render(view, ["video_hard"], plan)
    three = render(view, ["video_hard"], replace(plan, references=3))
    assert one.further == []
    np.testing.assert_array_equal(one.reference, three.reference)
    np.testing.assert_array_equal(one.settings["video_hard"][0], three.settings["video_hard"][0])
    with LiveTask("walker_walk", "original", 24, plan.reference_seed + 2) as live:
        live.reset()
        for _ in range(5):  # half of 2 x 4 steps, and the one that is looked at
            frame = live.step()
        np.testing.assert_array_equal(three.further[1][0], frame)
        np.testing.assert_array_equal(three.further[1][1], live.mask)
    assert len(three.further) == 2
    assert (three.further[0][1] != three.further[1][1]).any()


@needs_rendering
def test_it_measures_a_real_segmenter(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    from support.synthetic_bundle import write_bundle

    folders = [str(write_bundle(tmp_path / name, shared=True, seed=seed)) for seed, name in enumerate("ab")]
    options = [part for folder in folders for part in ("--bundle", folder)]
    options += ["--backend", "onnxruntime", "--tasks", "cartpole_swingup", "--episodes", "1", "--frames", "2"]
    options += ["--settings", "original,video_hard"]
    cells = tmp_path / "cells.png"
    options += ["--heatmap", str(cells), "--json", str(tmp_path / "accuracy.json")]
    result = CliRunner().invoke(accuracy.app, options)
    assert result.exit_code == 0, result.output
    assert Image.open(cells).size[1] > 280  # one below the other
    first, second = json.loads((tmp_path / "accuracy.json").read_text())["results"]
    assert first["views"]["cartpole_swingup@84"] != second["views"]["cartpole_swingup@84"]
