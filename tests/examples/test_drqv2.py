"""The training example: its pieces against slow definitions, and a small run that learns, stops and goes on."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samg_fast
from samg_fast.envs.dmc import reference
from support.clips import write_video
from support.paths import ROOT
from support.rendering import needs_rendering

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

import drqv2
import torch

from support.training import SMALL, flat, invoke, make_agent, make_batch, rows, same, saved, scalars

MEASURED = "--eval-every 4000 --eval-episodes 1 --eval-settings original,video_hard"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Learn on one thread: for networks as small as here, more of them only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- Agent ---


@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
def test_a_shift_is_a_whole_one_of_the_image_with_its_edges_repeated(height: int, width: int) -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (64, 3, height, width)).float()
    shifted = drqv2.random_shift(images, 4).numpy()
    found = set()
    for image, moved in zip(images.numpy(), shifted, strict=True):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="edge")
        corners = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if np.allclose(padded[:, y : y + height, x : x + width], moved, atol=0.05)
        ]
        assert len(corners) == 1
        found.add(corners[0])
    assert len(found) > 30
    assert {y for y, _ in found} == {x for _, x in found} == set(range(9))
    assert torch.allclose(drqv2.random_shift(images, 0), images, atol=0.05)


def test_noise_is_clipped_and_actions_stay_in_range() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([0.0, 0.9, -1.0]).repeat(500, 1).requires_grad_()
    free, clipped = drqv2.truncated_normal(mean, 1.0), drqv2.truncated_normal(mean, 1.0, 0.3)
    assert free.abs().max() < 1
    assert clipped.abs().max() < 1
    assert (free - mean).abs().max() > 0.9
    assert (clipped - mean).abs().max() <= 0.3 + 1e-6
    assert clipped.std(0).min() > 0.05
    free.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))
    assert torch.allclose(drqv2.truncated_normal(mean[:, :2], 0.0), mean[:, :2])


def test_the_noise_fades_linearly() -> None:
    options = drqv2.Options("walker_walk")
    assert [options.std(step) for step in (0, 50_000, 100_000, 10**7)] == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_an_update_moves_every_network_and_the_target_critic_a_little() -> None:
    torch.manual_seed(0)
    agent = make_agent(drqv2.DrqEncoder(9), 24, tau=0.25)
    before = {name: flat(getattr(agent, name)) for name in ("encoder", "actor", "critic", "target_critic")}
    learnt = agent.update(make_batch(24), 0.2)
    assert all(math.isfinite(each) for each in learnt.values())
    after = {name: flat(getattr(agent, name)) for name in before}
    assert not any(torch.equal(before[name], after[name]) for name in before)
    expected = before["target_critic"] + 0.25 * (after["critic"] - before["target_critic"])
    assert torch.allclose(after["target_critic"], expected, atol=1e-7)


def test_only_exploration_is_random() -> None:
    agent = make_agent(drqv2.DrqEncoder(9), 24)
    observation = np.zeros((9, 24, 24), np.uint8)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(agent.act(observation), agent.act(observation))
    assert torch.equal(torch.get_rng_state(), before)  # evaluation leaves training's random numbers alone
    assert np.ptp([agent.act(observation, 0.5)[0] for _ in range(20)]) > 0.5


def test_the_best_action_for_an_image_is_learnt() -> None:
    torch.manual_seed(0)
    options = drqv2.Options("walker_walk", hidden_dim=32, feature_dim=8, shift=2, learning_rate=2e-3)
    agent = drqv2.Agent(drqv2.DrqEncoder(9), (9, 16, 16), 1, options, torch.device("cpu"))

    def image(bright: Any) -> Any:
        return (20 + 200 * bright).to(torch.uint8)[:, None, None, None].expand(-1, 9, 16, 16)

    for _ in range(300):
        bright = torch.randint(2, (16,))
        actions = torch.rand(16, 1) * 2 - 1
        rewards = -((actions[:, 0] - (bright - 0.5)) ** 2)
        agent.update([image(bright), actions, rewards, torch.zeros(16), image(bright)], 0.2)
    dark, light = (float(agent.act(each.numpy())[0]) for each in image(torch.tensor([0, 1])))
    assert (dark, light) == pytest.approx((-0.5, 0.5), abs=0.15)


def test_a_discounted_value_goes_on_from_the_next_images() -> None:
    torch.manual_seed(0)
    agent = make_agent(drqv2.DrqEncoder(9), 24, learning_rate=3e-3, tau=1.0)
    for _ in range(150):
        learnt = agent.update(make_batch(24, discount=0.5, reward=1.0), 0.2)
    assert learnt["value"] == pytest.approx(2.0, abs=0.3)  # 1 + 0.5 + 0.25 + ...


# --- Runs ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for 200 steps."""
    folder = tmp_path_factory.mktemp("runs") / "walker"
    result = invoke(f"walker_walk --run {folder} --mask tiny --frames 4000", SMALL, MEASURED)
    assert result.exit_code == 0, result.output
    return folder


@needs_rendering
def test_a_run_learns_and_is_measured(finished: Path) -> None:
    found = rows(finished)
    assert [(row["frame"], row["setting"]) for row in found] == [(4000, "original"), (4000, "video_hard")]
    assert all(math.isfinite(row["mean"]) and len(row["returns"]) == 1 for row in found)

    seen = scalars(finished)
    assert [event.step for event in seen["train/return"]] == [1000, 2000, 3000, 4000]
    assert {event.value for event in seen["train/length"]} == {1000}
    assert [event.value for event in seen["train/steps"]] == [50, 100, 150, 200]
    for name in ("critic_loss", "actor_loss", "value"):
        assert [event.step for event in seen[f"train/{name}"]] == [2000, 3000, 4000]  # the first 1000 are random
        assert all(math.isfinite(event.value) for event in seen[f"train/{name}"])
    assert seen["evaluation/video_hard/mean"][0].value == pytest.approx(found[1]["mean"], rel=1e-5)

    state = saved(finished)
    assert state["reached"] == (200, 4, 0)
    steps = {int(each["step"]) for each in state["agent"]["critic_adam"]["state"].values()}
    assert steps == {75}  # every second step after the first 50
    torch.manual_seed(1)
    fresh = drqv2.DrqEncoder(9).state_dict()
    assert not any(torch.equal(state["agent"]["encoder"][name], fresh[name]) for name in fresh)


@needs_rendering
def test_images_in_the_replay_are_masked(finished: Path) -> None:
    frames = np.load(finished / "replay" / "00000002.npy")["frame"]
    assert frames.shape == (51, 3, 48, 48)
    black = (frames == 0).all(axis=1).mean(axis=(1, 2))
    assert ((black > 0.5) & (black < 1)).mean() > 0.9
    assert samg_fast.Target.load(finished / "target.safetensors").bundle == "tiny"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "walker"))


@needs_rendering
def test_a_finished_run_is_only_evaluated_again(copy: Path) -> None:
    before, first = saved(copy), rows(copy)
    again = MEASURED.replace("original,", "")
    result = invoke(f"walker_walk --run {copy} --frames 4000 --resume", SMALL, again)
    assert result.exit_code == 0, result.output
    assert same(before, saved(copy))
    assert rows(copy) == first  # the same networks play the same episode


@needs_rendering
def test_a_run_goes_on_where_it_was(copy: Path) -> None:
    before = saved(copy)
    # Whatever the target is by now, a run never identifies it again
    with samg_fast.load("tiny", threads=1, device="cpu") as segmenter:
        segmenter.identify(*reference("walker_walk", 48, 77)).save(copy / "target.safetensors")
    target = (copy / "target.safetensors").read_bytes()
    again = MEASURED.replace("video_hard", "color_easy").replace("original,", "")
    result = invoke(f"walker_walk --run {copy} --frames 6000 --resume", SMALL, again)
    assert result.exit_code == 0, result.output
    assert (copy / "target.safetensors").read_bytes() == target
    after = saved(copy)
    assert after["reached"] == (300, 6, 0)
    assert after["episodes"] == {"first": 0, "end": 6}
    measured = [(row["frame"], row["setting"]) for row in rows(copy)]
    # It goes on where 4000 was measured in two settings, and in this one not yet
    assert measured == [(4000, "original"), (4000, "video_hard"), (4000, "color_easy"), (6000, "color_easy")]
    assert [event.step for event in scalars(copy)["train/return"]] == list(range(1000, 7000, 1000))
    assert not same(before["agent"], after["agent"])


@needs_rendering
def test_a_seed_says_what_is_learnt(tmp_path: Path) -> None:
    small = f"{SMALL} --mask none --action-repeat 100 --frames 2000 --eval-episodes 1 --eval-settings video_hard"
    for name in ("one", "other"):
        result = invoke(f"pendulum_swingup --run {tmp_path / name}", small)
        assert result.exit_code == 0, result.output
    assert same(saved(tmp_path / "one"), saved(tmp_path / "other"))
    assert rows(tmp_path / "one") == rows(tmp_path / "other")


@pytest.mark.slow
@needs_rendering
def test_what_was_measured_is_kept_whatever_is_measured_next(tmp_path: Path) -> None:
    def measure(frames: int, *more: str) -> list[tuple[int, str, str | None, str | None]]:
        result = invoke(f"pendulum_swingup --run {tmp_path / 'run'} --mask none --frames {frames}", small, *more)
        assert result.exit_code == 0, result.output
        return [(row["frame"], row["setting"], row["clips"], row["colors"]) for row in rows(tmp_path / "run")]

    small = f"{SMALL} --action-repeat 100 --seed-frames 5000 --eval-every 1000 --eval-episodes 1"
    plain = "--eval-settings original,video_hard"
    pairs = [(frame, setting, None, None) for frame in (1000, 1500) for setting in ("original", "video_hard")]
    assert measure(1500, plain) == pairs
    # 1500 is no multiple of 1000, so that it is not measured when the run goes on
    assert measure(1600, plain, "--resume") == pairs + [(1600, name, None, None) for name in ("original", "video_hard")]
    before = rows(tmp_path / "run")

    for name in ("video_easy", "video_hard"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "a.mp4", [0, 100])
    (tmp_path / "color_easy.json").write_text('[{"self_rgb": [1, 0, 0]}]')
    other = f"--eval-settings video_easy,video_hard,color_easy,original --clips {tmp_path} --colors {tmp_path} --resume"
    for _ in range(2):
        measured = measure(1600, other)
    looks = str(tmp_path)
    assert measured[:5] == [*pairs, (1600, "video_hard", None, None)]
    assert measured[5:] == [
        (1600, "video_easy", looks, None),
        (1600, "video_hard", looks, None),
        (1600, "color_easy", None, looks),
        (1600, "original", None, None),  # no clip is seen there: this is what was measured before, and again
    ]
    assert [rows(tmp_path / "run")[index] for index in (0, 1, 2, 3, 4, 8)] == [*before[:4], before[5], before[4]]


@needs_rendering
def test_ctrl_c_keeps_a_checkpoint(tmp_path: Path, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    act, calls = drqv2.Trainer.act, []

    def pressed(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 70:
            ctrl_c()
        return act(self, *arguments)

    monkeypatch.setattr(drqv2.Trainer, "act", pressed)
    arguments = (f"walker_walk --run {tmp_path / 'run'} --mask none", SMALL)
    result = invoke(*arguments, "--frames 2000")
    assert result.exit_code == 130
    assert "interrupted at frame 1400: go on with --resume" in result.output
    state = saved(tmp_path / "run")
    assert state["reached"] == (70, 1, 20)
    monkeypatch.undo()
    result = invoke(*arguments, "--resume --frames 1600 --eval-episodes 1 --eval-settings original")
    assert result.exit_code == 0, result.output
    assert "goes on at frame 1400; of the episode that was running, 400 frames are not kept" in result.output
    assert saved(tmp_path / "run")["reached"] == (80, 1, 10)


@needs_rendering
def test_a_checkpoint_that_cannot_be_written_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, calls = torch.save, []

    def second_fails(state: Any, path: Path) -> None:
        calls.append(path)
        save(state, path)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", second_fails)
    result = invoke(f"walker_walk --run {tmp_path / 'run'} --mask none --checkpoint-every 400", SMALL)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("checkpoint.pt: No space left on device")
    assert saved(tmp_path / "run")["reached"][0] == 20
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == ["checkpoint.pt"]


@needs_rendering
def test_an_adroit_hand_is_measured_by_its_success(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    small = "--size 32 --action-repeat 50 --seed-frames 0 --hidden-dim 8 --batch 4 --threads 1"
    measured = "--eval-episodes 2 --eval-settings color_easy"
    result = invoke(f"adroit_door --run {tmp_path} --frames 500", small, measured)
    assert result.exit_code == 0, result.output
    (row,) = rows(tmp_path)
    assert row["success"] in (0.0, 0.5, 1.0)
    assert len(row["returns"]) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("walker_jump", "there is no task 'walker_jump': did you mean walker_"),
        ("walker_walk --setting video_heard", "there is no setting 'video_heard': did you mean video_hard"),
        ("walker_walk --eval-settings original,colour", "there is no setting 'colour'"),
        ("walker_walk --mask small", "'small'"),
        ("walker_walk --encoder pieg", "needs --resnet18 FILE, torchvision's resnet18-f37072fd.pth: https://"),
        ("walker_walk --encoder pieg --resnet18 x.pth --frame-stack 1", "--frame-stack must be 2 or more, not 1"),
        ("walker_walk --encoder pieg --resnet18 x.pth", "x.pth cannot be read as torchvision's resnet18"),
        ("walker_walk --size 14", "size is 14: DrQ-v2's encoder needs images of 15 pixels or more"),
        ("walker_walk --device cuda:99", "device is 'cuda:99', but torch sees"),
        ("walker_walk --resume", "resume: there is no run in "),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(tmp_path: Path, arguments: str, sentence: str) -> None:
    result = invoke(arguments, f"--run {tmp_path / 'run'}")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert sentence in result.stderr


@needs_rendering
def test_a_run_is_neither_overwritten_nor_changed(finished: Path) -> None:
    before = (finished / "checkpoint.pt").read_bytes()
    result = invoke(f"walker_walk --run {finished}", SMALL)
    assert result.exit_code == 1
    assert "holds a run; --resume goes on with it" in result.stderr
    result = invoke(f"walker_walk --run {finished} --resume", SMALL, "--nstep 5 --mask none")
    assert result.exit_code == 1
    assert "has other options: mask is none, was tiny; nstep is 5, was 3" in result.stderr
    assert (finished / "checkpoint.pt").read_bytes() == before


def test_the_script_starts_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "examples" / "drqv2.py"
    done = subprocess.run([sys.executable, script, "walker_jump"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no task 'walker_jump'")
