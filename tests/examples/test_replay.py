"""The replay buffer: n-step returns against a slow definition, and episodes that lie on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samg_fast import envs
from samg_fast.errors import CheckpointError

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")

import gymnasium
import torch
from replay import Episode, Replay, Stored, stacked, transition

Array = NDArray[Any]

OPEN_FILES = Path("/proc/self/fd")


def make_replay(folder: Path, *, capacity: int = 1000, **numbers: int) -> Replay:
    """Open a replay buffer that draws as DrQ-v2 does."""
    return Replay(folder, capacity, frame_stack=3, nstep=3, discount=0.99, **numbers)


def episode(length: int, *, value: int | None = None, terminated: bool = False) -> Array:
    """Make an episode of random images and rewards, or one whose images and actions are all `value`."""
    random = np.random.default_rng(length)

    def observation() -> Array:
        return (
            random.integers(256, size=(9, 4, 5), dtype=np.uint8) if value is None else np.full((9, 4, 5), value, "u1")
        )

    running = Episode(observation())
    for _ in range(length):
        action = random.standard_normal(2) if value is None else np.full(2, value)
        running.add(observation(), action.astype(np.float32), float(random.standard_normal()))
    rows: Array = running.rows(terminated)
    return rows


# --- n-step returns ---


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("nstep", [1, 3, 20])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_returns_are_those_of_a_slow_definition(length: int, nstep: int, terminated: bool) -> None:
    rows = episode(length, terminated=terminated)
    for t in range(length):
        total, weight, at = 0.0, 1.0, t
        for _ in range(nstep):
            total += weight * float(rows["reward"][at])
            weight *= 0.9
            at += 1
            if at == length:
                break
        bootstraps = not (terminated and at == length)
        observation, action, reward, discount, after = transition(rows, t, 3, nstep, 0.9)
        assert reward == pytest.approx(total, rel=1e-5)
        assert discount == pytest.approx(weight if bootstraps else 0.0)
        np.testing.assert_array_equal(action, rows["action"][t])
        np.testing.assert_array_equal(observation[-3:], rows["frame"][t])
        np.testing.assert_array_equal(after[-3:], rows["frame"][at])


class Images(gymnasium.Env[Any, Any]):
    """Random images for four steps; the last is cut off."""

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
def test_images_are_stacked_as_the_environment_stacks_them(count: int) -> None:
    env = envs.stack(Images(), count)
    seen = [env.reset(seed=0)[0]]
    running = Episode(seen[0])
    over = False
    while not over:
        observation, reward, terminated, over, _ = env.step(np.zeros(2, np.float32))
        running.add(observation, np.zeros(2, np.float32), reward)
        seen.append(observation)
    rows = running.rows(terminated)
    assert len(rows) == len(seen) == 5
    for t, observation in enumerate(seen):
        np.testing.assert_array_equal(stacked(rows, t, count), observation)


# --- Episodes on the disk ---


def test_what_is_drawn_is_of_one_episode_and_every_step_is_drawn(tmp_path: Path) -> None:
    replay = make_replay(tmp_path / "replay")
    lengths = [5, 1, 8, 3]
    for value, length in enumerate(lengths):
        replay.add(episode(length, value=value))
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
def test_what_is_read_of_a_file_is_what_the_whole_episode_says(tmp_path: Path, count: int, nstep: int) -> None:
    rows = episode(7, terminated=True)
    np.save(tmp_path / "a.npy", rows)
    stored = Stored.find(tmp_path / "a.npy")
    assert len(stored) == 7
    for t in range(7):
        expected = transition(rows, t, count, nstep, 0.9)
        for one, other in zip(stored.transition(t, count, nstep, 0.9), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_oldest_episodes_are_forgotten_and_their_files_when_no_checkpoint_needs_them(tmp_path: Path) -> None:
    folder = tmp_path / "replay"
    replay = make_replay(folder, capacity=10)
    for value in range(4):
        replay.add(episode(4, value=value))
    assert (replay.first, replay.end, len(replay)) == (2, 4, 8)
    assert len(list(folder.iterdir())) == 4
    replay.tidy()
    assert sorted(path.name for path in folder.iterdir()) == ["00000002.npy", "00000003.npy"]
    replay.add(episode(30, value=4))
    assert (replay.first, len(replay)) == (4, 30)  # the newest stays, however long it is


def test_episodes_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = tmp_path / "replay"
    replay = make_replay(folder)
    for length in (4, 6, 2):
        replay.add(episode(length))
    again = make_replay(folder, first=0, end=2)
    assert len(again) == 10
    assert len(list(folder.iterdir())) == 2  # the third was of after the checkpoint
    torch.manual_seed(3)
    drawn = again.sample(64)
    torch.manual_seed(3)
    for one, other in zip(drawn, make_replay(folder, first=0, end=2).sample(64), strict=True):
        assert torch.equal(one, other)
    (folder / "00000001.npy").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"episode .*00000001\.npy cannot be read"):
        make_replay(folder, first=0, end=2)


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason=f"{OPEN_FILES} is not here")
def test_there_may_be_more_episodes_than_files_can_be_open(tmp_path: Path) -> None:
    import resource

    folder = tmp_path / "replay"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(OPEN_FILES.iterdir())) + 20, limits[1]))
    try:
        replay = make_replay(folder)
        for value in range(60):
            replay.add(episode(4, value=value))
        for each in (replay, make_replay(folder, first=0, end=60)):
            observation, action, *_ = each.sample(500)
            assert (observation.long() == action[:, :1, None, None].long()).all()
            assert len(action.unique()) > 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_episode_that_is_gone_is_named(tmp_path: Path) -> None:
    replay = make_replay(tmp_path / "replay")
    replay.add(episode(4))
    (tmp_path / "replay" / "00000000.npy").unlink()
    with pytest.raises(CheckpointError, match=r"episode .*00000000\.npy cannot be read: .*No such file"):
        replay.sample(1)


@pytest.mark.parametrize("kept", [1.0, 0.5, 0.0])
def test_an_episode_that_was_cut_short_is_named(tmp_path: Path, kept: float) -> None:
    replay = make_replay(tmp_path / "replay")
    replay.add(episode(4))
    path = tmp_path / "replay" / "00000000.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * (len(whole) - 1))])
    with pytest.raises(CheckpointError, match=r"episode .*00000000\.npy was cut short .*: row \d of 5 is missing"):
        replay.sample(64)
