"""The training example: its pieces against slow definitions, and a small run that learns, stops and goes on."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import samg_fast
from samg_fast import envs
from samg_fast.envs.dmc import reference
from samg_fast.errors import CheckpointError
from support.clips import write_video
from support.paths import ROOT
from support.rendering import needs_rendering

torch = pytest.importorskip("torch", reason="torch is not installed")
gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

Array = NDArray[Any]

OPEN_FILES = Path("/proc/self/fd")
EXAMPLE = ROOT / "examples" / "drqv2.py"

# Episodes of 50 steps, and networks that learn in milliseconds
SMALL = "--size 48 --action-repeat 20 --seed-frames 1000 --hidden-dim 32 --feature-dim 8 --batch 8 --threads 1"
MEASURED = "--eval-every 4000 --eval-episodes 1 --eval-settings original,video_hard"


@pytest.fixture(scope="module")
def drqv2() -> Iterator[ModuleType]:
    """Load the example as the module it is."""
    spec = importlib.util.spec_from_file_location("drqv2", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["drqv2"] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["drqv2"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Give the other tests the threads back that the example limits."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def episode(drqv2: ModuleType, length: int, *, value: int | None = None, terminated: bool = False) -> Array:
    """Make an episode of random pictures and rewards, or one whose pictures and actions are all `value`."""
    random = np.random.default_rng(length)

    def observation() -> Array:
        return (
            random.integers(256, size=(9, 4, 5), dtype=np.uint8) if value is None else np.full((9, 4, 5), value, "u1")
        )

    running = drqv2.Episode(observation())
    for _ in range(length):
        action = random.standard_normal(2) if value is None else np.full(2, value)
        running.add(observation(), action.astype(np.float32), float(random.standard_normal()))
    rows: Array = running.rows(terminated)
    return rows


# --- n-step returns ---


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("nstep", [1, 3, 20])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_returns_are_those_of_a_slow_definition(drqv2: ModuleType, length: int, nstep: int, terminated: bool) -> None:
    rows = episode(drqv2, length, terminated=terminated)
    for t in range(length):
        total, weight, at = 0.0, 1.0, t
        for _ in range(nstep):
            total += weight * float(rows["reward"][at])
            weight *= 0.9
            at += 1
            if at == length:
                break
        bootstraps = not (terminated and at == length)
        observation, action, reward, discount, after = drqv2.transition(rows, t, 3, nstep, 0.9)
        assert reward == pytest.approx(total, rel=1e-5)
        assert discount == pytest.approx(weight if bootstraps else 0.0)
        np.testing.assert_array_equal(action, rows["action"][t])
        np.testing.assert_array_equal(observation[-3:], rows["frame"][t])
        np.testing.assert_array_equal(after[-3:], rows["frame"][at])


class Pictures(gymnasium.Env[Any, Any]):
    """Random pictures for four steps; the last is cut off."""

    observation_space = gymnasium.spaces.Box(0, 255, (6, 5, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 4
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.observation_space.sample(), 1.0, False, self.left == 0, {}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pictures_are_stacked_as_the_environment_stacks_them(drqv2: ModuleType, count: int) -> None:
    env = envs.stack(Pictures(), count)
    seen = [env.reset(seed=0)[0]]
    running = drqv2.Episode(seen[0])
    over = False
    while not over:
        observation, reward, terminated, over, _ = env.step(np.zeros(2, np.float32))
        running.add(observation, np.zeros(2, np.float32), reward)
        seen.append(observation)
    rows = running.rows(terminated)
    assert len(rows) == len(seen) == 5
    for t, observation in enumerate(seen):
        np.testing.assert_array_equal(drqv2.stacked(rows, t, count), observation)


# --- Replay ---


def test_what_is_drawn_is_of_one_episode_and_every_step_is_drawn(drqv2: ModuleType, tmp_path: Path) -> None:
    replay = drqv2.Replay(tmp_path / "replay", drqv2.Options("walker_walk", nstep=3))
    lengths = [5, 1, 8, 3]
    for value, length in enumerate(lengths):
        replay.add(episode(drqv2, length, value=value))
    assert len(replay) == 17
    torch.manual_seed(0)
    observation, action, _, discount, after = replay.sample(3400)
    assert observation.shape == after.shape == (3400, 9, 4, 5)
    of = action[:, 0].long()
    assert (observation.long() == of[:, None, None, None]).all()
    assert (after.long() == of[:, None, None, None]).all()
    # Each of the 17 steps is as likely as any other
    assert torch.bincount(of).tolist() == pytest.approx([200 * length for length in lengths], rel=0.2)
    # Only the last two steps of an episode have fewer than three rewards
    assert torch.allclose(discount[of == 1], torch.tensor(0.99))
    assert (discount[of == 2] < 0.98).float().mean() == pytest.approx(6 / 8, abs=0.1)


@pytest.mark.parametrize(("count", "nstep"), [(1, 1), (3, 3), (4, 20)])
def test_what_is_read_of_a_file_is_what_the_whole_episode_says(
    drqv2: ModuleType, tmp_path: Path, count: int, nstep: int
) -> None:
    rows = episode(drqv2, 7, terminated=True)
    np.save(tmp_path / "a.npy", rows)
    stored = drqv2.Stored.find(tmp_path / "a.npy")
    assert len(stored) == 7
    for t in range(7):
        expected = drqv2.transition(rows, t, count, nstep, 0.9)
        for one, other in zip(stored.transition(t, count, nstep, 0.9), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_oldest_episodes_are_forgotten_and_their_files_when_no_checkpoint_needs_them(
    drqv2: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "replay"
    options = drqv2.Options("walker_walk", buffer=10)
    replay = drqv2.Replay(folder, options)
    for value in range(4):
        replay.add(episode(drqv2, 4, value=value))
    assert (replay.first, replay.end, len(replay)) == (2, 4, 8)
    assert len(list(folder.iterdir())) == 4
    replay.tidy()
    assert sorted(path.name for path in folder.iterdir()) == ["00000002.npy", "00000003.npy"]
    replay.add(episode(drqv2, 30, value=4))
    assert (replay.first, len(replay)) == (4, 30)  # the newest stays, however long it is


def test_episodes_are_read_as_they_were_written(drqv2: ModuleType, tmp_path: Path) -> None:
    folder, options = tmp_path / "replay", drqv2.Options("walker_walk")
    replay = drqv2.Replay(folder, options)
    for length in (4, 6, 2):
        replay.add(episode(drqv2, length))
    again = drqv2.Replay(folder, options, first=0, end=2)
    assert len(again) == 10
    assert len(list(folder.iterdir())) == 2  # the third was of after the checkpoint
    torch.manual_seed(3)
    drawn = again.sample(64)
    torch.manual_seed(3)
    for one, other in zip(drawn, drqv2.Replay(folder, options, first=0, end=2).sample(64), strict=True):
        assert torch.equal(one, other)
    (folder / "00000001.npy").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"episode .*00000001\.npy cannot be read"):
        drqv2.Replay(folder, options, first=0, end=2)


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason=f"{OPEN_FILES} is not here")
def test_there_may_be_more_episodes_than_files_can_be_open(drqv2: ModuleType, tmp_path: Path) -> None:
    import resource

    folder, options = tmp_path / "replay", drqv2.Options("walker_walk")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(OPEN_FILES.iterdir())) + 20, limits[1]))
    try:
        replay = drqv2.Replay(folder, options)
        for value in range(60):
            replay.add(episode(drqv2, 4, value=value))
        for each in (replay, drqv2.Replay(folder, options, first=0, end=60)):
            observation, action, *_ = each.sample(500)
            assert (observation.long() == action[:, :1, None, None].long()).all()
            assert len(action.unique()) > 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_episode_that_is_gone_is_named(drqv2: ModuleType, tmp_path: Path) -> None:
    replay = drqv2.Replay(tmp_path / "replay", drqv2.Options("walker_walk"))
    replay.add(episode(drqv2, 4))
    (tmp_path / "replay" / "00000000.npy").unlink()
    with pytest.raises(CheckpointError, match=r"episode .*00000000\.npy cannot be read: .*No such file"):
        replay.sample(1)


# --- Agent ---


@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
def test_a_shift_is_a_whole_one_of_the_picture_with_its_edges_repeated(
    drqv2: ModuleType, height: int, width: int
) -> None:
    torch.manual_seed(0)
    pictures = torch.randint(256, (64, 3, height, width)).float()
    shifted = drqv2.random_shift(pictures, 4).numpy()
    found = set()
    for picture, moved in zip(pictures.numpy(), shifted, strict=True):
        padded = np.pad(picture, ((0, 0), (4, 4), (4, 4)), mode="edge")
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
    assert torch.allclose(drqv2.random_shift(pictures, 0), pictures, atol=0.05)


def test_noise_is_clipped_and_actions_stay_in_range(drqv2: ModuleType) -> None:
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


def test_the_noise_fades_linearly(drqv2: ModuleType) -> None:
    options = drqv2.Options("walker_walk")
    assert [options.std(step) for step in (0, 50_000, 100_000, 10**7)] == pytest.approx([1.0, 0.55, 0.1, 0.1])


def make_agent(drqv2: ModuleType, encoder: Any, size: int, **changes: Any) -> Any:
    options = drqv2.Options("walker_walk", hidden_dim=16, feature_dim=8, shift=2, **changes)
    return drqv2.Agent(encoder, (9, size, size), 2, options, torch.device("cpu"))


def make_batch(size: int, *, discount: float = 0.97, reward: float = 1.0) -> list[Any]:
    pictures = torch.randint(256, (2, 6, 9, size, size), dtype=torch.uint8)
    scalars = torch.full((6,), reward), torch.full((6,), discount)
    return [pictures[0], torch.rand(6, 2) * 2 - 1, *scalars, pictures[1]]


def flat(module: Any) -> Any:
    return torch.cat([each.detach().flatten() for each in module.parameters()])


def test_an_update_moves_every_network_and_the_target_critic_a_little(drqv2: ModuleType) -> None:
    torch.manual_seed(0)
    agent = make_agent(drqv2, drqv2.DrqEncoder(9), 24, tau=0.25)
    before = {name: flat(getattr(agent, name)) for name in ("encoder", "actor", "critic", "target_critic")}
    learnt = agent.update(make_batch(24), 0.2)
    assert all(math.isfinite(each) for each in learnt.values())
    after = {name: flat(getattr(agent, name)) for name in before}
    assert not any(torch.equal(before[name], after[name]) for name in before)
    expected = before["target_critic"] + 0.25 * (after["critic"] - before["target_critic"])
    assert torch.allclose(after["target_critic"], expected, atol=1e-7)


def test_only_exploration_is_random(drqv2: ModuleType) -> None:
    agent = make_agent(drqv2, drqv2.DrqEncoder(9), 24)
    observation = np.zeros((9, 24, 24), np.uint8)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(agent.act(observation), agent.act(observation))
    assert torch.equal(torch.get_rng_state(), before)  # evaluation leaves training's random numbers alone
    assert np.ptp([agent.act(observation, 0.5)[0] for _ in range(20)]) > 0.5


def test_the_best_action_for_a_picture_is_learnt(drqv2: ModuleType) -> None:
    torch.manual_seed(0)
    options = drqv2.Options("walker_walk", hidden_dim=32, feature_dim=8, shift=2, learning_rate=2e-3)
    agent = drqv2.Agent(drqv2.DrqEncoder(9), (9, 16, 16), 1, options, torch.device("cpu"))

    def picture(bright: Any) -> Any:
        return (20 + 200 * bright).to(torch.uint8)[:, None, None, None].expand(-1, 9, 16, 16)

    for _ in range(300):
        bright = torch.randint(2, (16,))
        actions = torch.rand(16, 1) * 2 - 1
        rewards = -((actions[:, 0] - (bright - 0.5)) ** 2)
        agent.update([picture(bright), actions, rewards, torch.zeros(16), picture(bright)], 0.2)
    dark, light = (float(agent.act(each.numpy())[0]) for each in picture(torch.tensor([0, 1])))
    assert (dark, light) == pytest.approx((-0.5, 0.5), abs=0.15)


def test_a_discounted_value_goes_on_from_the_next_pictures(drqv2: ModuleType) -> None:
    torch.manual_seed(0)
    agent = make_agent(drqv2, drqv2.DrqEncoder(9), 24, learning_rate=3e-3, tau=1.0)
    for _ in range(150):
        learnt = agent.update(make_batch(24, discount=0.5, reward=1.0), 0.2)
    assert learnt["value"] == pytest.approx(2.0, abs=0.3)  # 1 + 0.5 + 0.25 + ...


# --- PIE-G ---


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{each}": (channels,) for each in names} | {f"{name}.num_batches_tracked": ()}


def resnet18() -> dict[str, tuple[int, ...]]:
    """Write torchvision's names and shapes down: four layers of two blocks of two convolutions."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64), "fc.weight": (1000, 512), "fc.bias": (1000,)}
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3), **norm(f"{name}.bn1", outputs)}
            shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3), **norm(f"{name}.bn2", outputs)}
            if inputs != outputs:
                shapes |= {
                    f"{name}.downsample.0.weight": (outputs, inputs, 1, 1),
                    **norm(f"{name}.downsample.1", outputs),
                }
            inputs = outputs
    return shapes


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    scales = {"weight": 0.05, "bias": 0.05}
    return {
        name: torch.rand(shape, generator=generator) * scales.get(name.rpartition(".")[2], 1.0) + 0.01
        if shape or not name.endswith("num_batches_tracked")
        else torch.tensor(0)
        for name, shape in resnet18().items()
    }


@pytest.mark.parametrize("counters", [True, False])
def test_torchvisions_weights_are_read(
    drqv2: ModuleType, weights: dict[str, Any], tmp_path: Path, counters: bool
) -> None:
    assert len(weights) == 122
    kept = {name: each for name, each in weights.items() if counters or not name.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "resnet18.pth")
    own = drqv2.ResNet18(tmp_path / "resnet18.pth").state_dict()
    early = {name for name in weights if not name.startswith(("layer3", "layer4", "fc"))}
    assert set(own) == early
    for name in early - {name for name in early if name.endswith("num_batches_tracked")}:
        assert torch.equal(own[name], weights[name])


def test_other_files_are_refused(drqv2: ModuleType, weights: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    with pytest.raises(
        CheckpointError, match=r"resnet18\.pth cannot be read as torchvision's resnet18: .*No such file"
    ):
        drqv2.ResNet18(path)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read as torchvision's resnet18"):
        drqv2.ResNet18(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="it holds a list"):
        drqv2.ResNet18(path)
    torch.save({"model": Path("anything")}, path)
    with pytest.raises(CheckpointError, match="cannot be read as torchvision's resnet18"):
        drqv2.ResNet18(path)
    wrong = {**weights, "conv1.weight": torch.zeros(64, 3, 3, 3), "head.weight": torch.zeros(1)}
    del wrong["layer2.0.downsample.0.weight"]
    torch.save(wrong, path)
    with pytest.raises(CheckpointError) as caught:
        drqv2.ResNet18(path)
    assert str(caught.value) == (
        f"{path} is not torchvision's resnet18: conv1.weight is (64, 3, 3, 3); "
        "layer2.0.downsample.0.weight is missing; head.weight is none of its tensors"
    )


def test_piegs_encoder_looks_at_each_picture_alone_and_at_what_changed(
    drqv2: ModuleType, weights: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "resnet18.pth")
    encoder = drqv2.make_encoder(
        drqv2.Options("walker_walk", encoder="pieg", resnet18=tmp_path / "resnet18.pth", size=33)
    ).eval()
    pictures = torch.randint(256, (2, 9, 33, 33), dtype=torch.uint8)
    maps = [encoder.resnet(each.float() / 255 - 0.5) for each in pictures.split(3, dim=1)]
    assert maps[0].shape == (2, 128, 5, 5)
    inputs = torch.cat((maps[1], maps[2], maps[1] - maps[0], maps[2] - maps[1]), 1).flatten(1)
    assert torch.allclose(encoder(pictures), encoder.head(inputs), atol=1e-4)

    agent = make_agent(drqv2, encoder, 33)
    frozen, head, mean = flat(encoder.resnet), flat(encoder.head), encoder.resnet.bn1.running_mean.clone()
    agent.act(pictures[0].numpy())
    assert torch.equal(encoder.resnet.bn1.running_mean, mean)
    agent.update(make_batch(33), 0.2)
    assert torch.equal(flat(encoder.resnet), frozen)
    assert not torch.equal(flat(encoder.head), head)
    assert not torch.equal(encoder.resnet.bn1.running_mean, mean)


# --- Runs ---


def invoke(drqv2: ModuleType, *arguments: str) -> Any:
    return CliRunner().invoke(drqv2.app, [part for each in arguments for part in each.split(" ")])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluation.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def finished(drqv2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for 200 steps."""
    folder = tmp_path_factory.mktemp("runs") / "walker"
    result = invoke(drqv2, f"walker_walk --run {folder} --mask tiny --frames 4000", SMALL, MEASURED)
    assert result.exit_code == 0, result.output
    return folder


def saved(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@needs_rendering
def test_a_run_learns_and_is_measured(drqv2: ModuleType, finished: Path) -> None:
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
def test_pictures_in_the_replay_are_masked(finished: Path) -> None:
    frames = np.load(finished / "replay" / "00000002.npy")["frame"]
    assert frames.shape == (51, 3, 48, 48)
    black = (frames == 0).all(axis=1).mean(axis=(1, 2))
    assert ((black > 0.5) & (black < 1)).mean() > 0.9
    assert samg_fast.Target.load(finished / "target.safetensors").bundle == "tiny"


@needs_rendering
def test_a_finished_run_is_only_evaluated_again(drqv2: ModuleType, finished: Path) -> None:
    before, first = saved(finished), rows(finished)
    again = MEASURED.replace("original,", "")
    result = invoke(drqv2, f"walker_walk --run {finished} --frames 4000 --resume", SMALL, again)
    assert result.exit_code == 0, result.output
    assert same(before, saved(finished))
    assert rows(finished) == first  # the same networks play the same episode


@needs_rendering
def test_a_run_goes_on_where_it_was(drqv2: ModuleType, finished: Path) -> None:
    before = saved(finished)
    options = replace(drqv2.Options("walker_walk"), run=finished, resume=True, **before["options"])
    run = drqv2.Run(options)
    agent = drqv2.Agent(drqv2.DrqEncoder(9), (9, 48, 48), 6, options, torch.device("cpu"))
    run.restore(agent)
    assert same(agent.state(), before["agent"])
    assert torch.equal(torch.get_rng_state(), before["random"])
    assert len(run.replay()) == 200

    # Whatever the target is by now, a run never identifies it again
    with samg_fast.load("tiny", threads=1, device="cpu") as segmenter:
        segmenter.identify(*reference("walker_walk", 48, 77)).save(finished / "target.safetensors")
    target = (finished / "target.safetensors").read_bytes()
    again = MEASURED.replace("video_hard", "color_easy").replace("original,", "")
    result = invoke(drqv2, f"walker_walk --run {finished} --frames 6000 --resume", SMALL, again)
    assert result.exit_code == 0, result.output
    assert (finished / "target.safetensors").read_bytes() == target
    after = saved(finished)
    assert after["reached"] == (300, 6, 0)
    assert after["episodes"] == {"first": 0, "end": 6}
    measured = [(row["frame"], row["setting"]) for row in rows(finished)]
    # It goes on where 4000 was measured in two settings, and in this one not yet
    assert measured == [(4000, "original"), (4000, "video_hard"), (4000, "color_easy"), (6000, "color_easy")]
    assert [event.step for event in scalars(finished)["train/return"]] == list(range(1000, 7000, 1000))
    assert not same(before["agent"], after["agent"])


@pytest.mark.slow
@needs_rendering
def test_what_was_measured_is_kept_whatever_is_measured_next(drqv2: ModuleType, tmp_path: Path) -> None:
    def measure(frames: int, *more: str) -> list[tuple[int, str, str | None, str | None]]:
        result = invoke(drqv2, f"pendulum_swingup --run {tmp_path / 'run'} --mask none --frames {frames}", small, *more)
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
def test_pieg_s_encoder_trains(drqv2: ModuleType, weights: dict[str, Any], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "resnet18.pth")
    pieg = f"pendulum_swingup --run {tmp_path} --mask none --encoder pieg --resnet18 {tmp_path / 'resnet18.pth'}"
    measured = "--eval-episodes 1 --eval-settings original"
    result = invoke(drqv2, pieg, SMALL, "--size 24 --frames 1200", measured)
    assert result.exit_code == 0, result.output
    state = saved(tmp_path)["agent"]
    steps = {int(each["step"]) for each in state["critic_adam"]["state"].values()}
    assert steps == {5}  # every second step after the first 50
    assert torch.equal(state["encoder"]["resnet.conv1.weight"], weights["conv1.weight"])
    (row,) = rows(tmp_path)
    assert math.isfinite(row["mean"])


@needs_rendering
def test_ctrl_c_keeps_a_checkpoint(
    drqv2: ModuleType, tmp_path: Path, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, calls = drqv2.Trainer.choose, []

    def pressed(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 70:
            ctrl_c()
        return choose(self, *arguments)

    monkeypatch.setattr(drqv2.Trainer, "choose", pressed)
    arguments = (f"walker_walk --run {tmp_path / 'run'} --mask none", SMALL)
    result = invoke(drqv2, *arguments, "--frames 2000")
    assert result.exit_code == 130
    assert "interrupted at frame 1400: go on with --resume" in result.output
    state = saved(tmp_path / "run")
    assert state["reached"] == (70, 1, 20)
    monkeypatch.undo()
    result = invoke(drqv2, *arguments, "--resume --frames 1600 --eval-episodes 1 --eval-settings original")
    assert result.exit_code == 0, result.output
    assert "goes on at frame 1400; of the episode that was running, 400 frames are not kept" in result.output
    assert saved(tmp_path / "run")["reached"] == (80, 1, 10)


@needs_rendering
def test_a_checkpoint_that_cannot_be_written_leaves_the_last(
    drqv2: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def second_fails(state: Any, path: Path) -> None:
        calls.append(path)
        save(state, path)
        if len(calls) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", second_fails)
    result = invoke(drqv2, f"walker_walk --run {tmp_path / 'run'} --mask none --checkpoint-every 400", SMALL)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("checkpoint.pt: No space left on device")
    assert saved(tmp_path / "run")["reached"][0] == 20
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == ["checkpoint.pt"]


@needs_rendering
def test_an_adroit_hand_is_measured_by_its_success(drqv2: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")
    small = "--size 32 --action-repeat 50 --seed-frames 0 --hidden-dim 8 --batch 4 --threads 1"
    measured = "--eval-episodes 2 --eval-settings color_easy"
    result = invoke(drqv2, f"adroit_door --run {tmp_path} --frames 500", small, measured)
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
        ("walker_walk --size 14", "size is 14: DrQ-v2's encoder needs pictures of 15 pixels or more"),
        ("walker_walk --device cuda:99", "device is 'cuda:99', but torch sees"),
        ("walker_walk --resume", "resume: there is no run in "),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(drqv2: ModuleType, tmp_path: Path, arguments: str, sentence: str) -> None:
    result = invoke(drqv2, arguments, f"--run {tmp_path / 'run'}")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert sentence in result.stderr


@needs_rendering
def test_a_run_is_neither_overwritten_nor_changed(drqv2: ModuleType, finished: Path) -> None:
    before = (finished / "checkpoint.pt").read_bytes()
    result = invoke(drqv2, f"walker_walk --run {finished}", SMALL)
    assert result.exit_code == 1
    assert "holds a run; --resume goes on with it" in result.stderr
    result = invoke(drqv2, f"walker_walk --run {finished} --resume", SMALL, "--nstep 5 --mask none")
    assert result.exit_code == 1
    assert "has other options: mask is none, was tiny; nstep is 5, was 3" in result.stderr
    assert (finished / "checkpoint.pt").read_bytes() == before


def test_other_checkpoints_are_refused(drqv2: ModuleType, tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(1)}, tmp_path / "checkpoint.pt")
    result = invoke(drqv2, f"walker_walk --run {tmp_path} --resume")
    assert result.exit_code == 1
    assert "checkpoint.pt has format None, expected 'samg-fast drqv2 1'" in result.stderr
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    result = invoke(drqv2, f"walker_walk --run {tmp_path} --resume")
    assert result.exit_code == 1
    assert "checkpoint.pt cannot be read as a checkpoint" in result.stderr
