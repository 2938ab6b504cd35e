"""A run's folder: one process at a time, and what it goes on from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samg_fast.errors import CheckpointError, FileError, InputError
from support.paths import ROOT

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("tensorboard", reason="tensorboard is not installed")

import torch
from drqv2 import DrqEncoder, Options
from replay import Episode, Replay
from run_folder import Run, open_run

from support.training import invoke, make_agent, same, saved

OPTIONS = Options("walker_walk").lasting()


def begin(run: Run, *, steps: int) -> Any:
    """Take steps in two episodes, of which the second goes on, and save."""
    agent = make_agent(DrqEncoder(9), 24)
    replay = Replay(run.folder / "replay", 100, 3, 3, 0.99, **run.episodes)
    observation = np.zeros((9, 24, 24), np.uint8)
    episode = Episode(observation)
    for _ in range(4):
        episode.add(observation, np.zeros(2, np.float32), 1.0)
    replay.add(episode.rows(terminated=False))
    for step in range(1, steps + 1):
        run.count(finished=step == 4)
    run.save(agent, replay)
    return agent


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with open_run(tmp_path / "run", OPTIONS, resume=False) as run:
        assert (run.step, run.episode, run.frame, run.lost, run.episodes) == (0, 0, 0, 0, {})
        before = begin(run, steps=7)
    random = torch.get_rng_state()
    torch.manual_seed(1)
    with open_run(tmp_path / "run", OPTIONS, resume=True) as run:
        # Frames are two a step
        assert (run.step, run.episode, run.frame, run.lost) == (7, 1, 14, 6)
        assert run.unfinished == 0
        assert len(Replay(tmp_path / "run" / "replay", 100, 3, 3, 0.99, **run.episodes)) == 4
        after = make_agent(DrqEncoder(9), 24)
        run.restore(after)
    assert torch.equal(torch.get_rng_state(), random)
    for name, part in before.parts().items():
        assert same(part.state_dict(), after.parts()[name].state_dict())


def test_a_checkpoint_is_what_it_was_in_the_first_version(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", OPTIONS, resume=False) as run:
        begin(run, steps=7)
    state = saved(tmp_path / "run")
    assert state.keys() == {"format", "options", "reached", "episodes", "agent", "random", "cuda_random"}
    assert state["format"] == "samg-fast drqv2 1"
    names = "task setting mask encoder seed seed_frames size frame_stack action_repeat buffer nstep discount batch "
    names += "update_every learning_rate tau feature_dim hidden_dim shift std_start std_end std_steps std_clip"
    assert state["options"].keys() == set(names.split())
    assert state["reached"] == (7, 1, 3)
    assert state["episodes"] == {"first": 0, "end": 1}
    assert state["agent"].keys() == {"encoder", "actor", "critic", "target_critic", "actor_adam", "critic_adam"}
    assert {"trunk.0.weight", "layers.1.4.bias"} < state["agent"]["critic"].keys()
    assert "layers.6.bias" in state["agent"]["encoder"]
    rows = np.load(tmp_path / "run" / "replay" / "00000000.npy")
    assert rows.dtype.names == ("frame", "action", "reward", "terminated")
    assert rows.shape == (5,)


def test_evaluations_after_the_checkpoint_are_dropped_when_a_run_goes_on(tmp_path: Path) -> None:
    def frames() -> list[tuple[int, float]]:
        lines = (tmp_path / "run" / "evaluation.jsonl").read_text().splitlines()
        return [(row["frame"], row["mean"]) for row in map(json.loads, lines)]

    with open_run(tmp_path / "run", OPTIONS, resume=False) as run:
        begin(run, steps=4)
        run.report("original", {}, {"mean": 1.0, "returns": [1.0]})
        run.count(finished=False)
        run.report("original", {}, {"mean": 2.0, "returns": [2.0]})
        assert frames() == [(8, 1.0), (10, 2.0)]
    with open_run(tmp_path / "run", OPTIONS, resume=True) as run:
        run.report("original", {}, {"mean": 3.0, "returns": [3.0]})
        run.report("video_hard", {}, {"mean": 4.0, "returns": [4.0]})
    assert frames() == [(8, 3.0), (8, 4.0)]


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", OPTIONS, resume=False):
        files = sorted(path.name for path in (tmp_path / "run").iterdir())
        result = invoke(f"walker_walk --run {tmp_path / 'run'} --mask none")
        assert result.exit_code == 1
        assert result.stderr == (
            f"error: run: another process is training in {tmp_path / 'run'}; choose another --run\n"
        )
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == files
    with open_run(tmp_path / "run", OPTIONS, resume=False) as run:
        begin(run, steps=4)
        with pytest.raises(InputError, match="another process is training"), open_run(run.folder, OPTIONS, resume=True):
            pass
    with open_run(tmp_path / "run", OPTIONS, resume=True):
        pass


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    hold = "import pathlib, run_folder\nwith run_folder.locked(pathlib.Path.cwd()): print('held', flush=True); input()"
    arguments = [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT / 'examples')!r})\n{hold}"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(InputError, match="another process"), open_run(tmp_path, OPTIONS, resume=False):
            pass
        other.kill()
        other.wait()
        with open_run(tmp_path, OPTIONS, resume=False) as run:
            assert run.folder == tmp_path


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="file"), open_run(tmp_path / "file", OPTIONS, resume=False):
        pass
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(FileError, match=r"run: cannot lock .*run: "), open_run(tmp_path / "run", OPTIONS, resume=False):
        pass
    with pytest.raises(InputError, match="there is no run in"), open_run(tmp_path / "none", OPTIONS, resume=True):
        pass
    assert not (tmp_path / "none").exists()


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(1)}, tmp_path / "checkpoint.pt")
    with (
        pytest.raises(CheckpointError, match="has format None, expected 'samg-fast drqv2 1'"),
        open_run(tmp_path, OPTIONS, resume=True),
    ):
        pass
    result = invoke(f"walker_walk --run {tmp_path} --resume")
    assert result.exit_code == 1
    assert "checkpoint.pt has format None, expected 'samg-fast drqv2 1'" in result.stderr
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    result = invoke(f"walker_walk --run {tmp_path} --resume")
    assert result.exit_code == 1
    assert "checkpoint.pt cannot be read as a checkpoint" in result.stderr
