"""The folder of a training run: its lock, checkpoint, target and evaluations, and how the run goes on from them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from replay import Replay
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from samg_fast import Target
from samg_fast.errors import CheckpointError, FileError, InputError
from samg_fast.files import output_folder, replacing, write_text

FORMAT = "samg-fast drqv2 1"


class Learner(Protocol):
    """What a checkpoint keeps of an agent."""

    device: torch.device

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Return all that learning changes."""


class Run:
    """How far a run has come, and what it writes into its folder; made by `open_run`.

    Attributes
    ----------
    step, episode : int
        How many of the agent's steps and of finished episodes there were.
    unfinished : int
        Steps of the episode that is running, which a checkpoint does not keep.
    lost : int
        Frames that were not kept when the run was cut off, of the episode that was running then.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any], saved: dict[str, Any] | None) -> None:
        self.folder, self.options, self._saved = folder, options, saved
        reached: tuple[int, int, int] = (0, 0, 0) if saved is None else saved["reached"]
        self.step, self.episode, unfinished = reached
        self.unfinished, self.lost = 0, unfinished * self.options["action_repeat"]
        self._writer = SummaryWriter(str(folder), purge_step=self.frame + 1)
        self._evaluation = folder / "evaluation.jsonl"
        self._rows: list[dict[str, Any]] = []
        if saved is not None and self._evaluation.exists():
            rows = map(json.loads, self._evaluation.read_text(encoding="utf-8").splitlines())
            # Whatever came after the checkpoint is done again
            self._rows = [row for row in rows if row["frame"] <= self.frame]

    @property
    def frame(self) -> int:
        """How many control steps of the task there were."""
        frame: int = self.step * self.options["action_repeat"]
        return frame

    def count(self, *, finished: bool) -> None:
        """Count a step, and its episode if that is finished now."""
        self.step += 1
        self.episode += finished
        self.unfinished = 0 if finished else self.unfinished + 1

    @property
    def episodes(self) -> dict[str, int]:
        """The numbers of the checkpoint's episodes, as `Replay` takes them: ``first`` and ``end``."""
        return {} if self._saved is None else self._saved["episodes"]

    def target(self, identify: Callable[[], Target]) -> Target:
        """Return the run's one target: identified when the run begins, and read when it goes on."""
        path = self.folder / "target.safetensors"
        if self._saved is None:
            identify().save(path)
        return Target.load(path)

    def restore(self, agent: Learner) -> None:
        """Load the checkpoint, if there is one, into the agent and torch's random generators."""
        if self._saved is None:
            return
        for name, part in agent.parts().items():
            part.load_state_dict(self._saved["agent"][name])
        torch.set_rng_state(self._saved["random"])
        if agent.device.type == "cuda" and self._saved["cuda_random"] is not None:
            torch.cuda.set_rng_state(self._saved["cuda_random"], agent.device)

    def save(self, agent: Learner, replay: Replay) -> None:
        """Write the checkpoint, whole or not at all, and remove the episodes that only the one before needed."""
        state = {
            "format": FORMAT,
            "options": dict(self.options),
            "reached": (self.step, self.episode, self.unfinished),
            "episodes": {"first": replay.first, "end": replay.end},
            "agent": {name: part.state_dict() for name, part in agent.parts().items()},
            # Nothing else is random: batches are drawn by torch too, and each environment has a seed of its own
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(agent.device) if agent.device.type == "cuda" else None,
        }
        with replacing(self.folder / "checkpoint.pt") as path:
            torch.save(state, path)
        replay.tidy()

    def log(self, group: str, figures: Mapping[str, Any]) -> None:
        """Add numbers to TensorBoard's events."""
        for name, figure in figures.items():
            self._writer.add_scalar(f"{group}/{name}", figure, self.frame)

    def close(self) -> None:
        """Write what TensorBoard's events are still to get."""
        self._writer.close()

    def report(self, setting: str, assets: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Log an evaluation, and add it to ``evaluation.jsonl`` in place of an earlier one of the same."""
        self.log(f"evaluation/{setting}", {name: each for name, each in figures.items() if name != "returns"})
        measured = {"frame": self.frame, "setting": setting, **assets}
        others = [row for row in self._rows if any(row.get(name) != value for name, value in measured.items())]
        self._rows = [*others, {**measured, **figures}]
        write_text(self._evaluation, "".join(json.dumps(each) + "\n" for each in self._rows))


@contextmanager
def open_run(folder: Path, options: Mapping[str, Any], *, resume: bool) -> Iterator[Run]:
    """Begin a run in a folder, or go on with the one that is there; no other process can meanwhile.

    Parameters
    ----------
    folder : pathlib.Path
        Is made where it does not exist, unless the run is to go on.
    options : mapping
        What cannot change when the run goes on, plain values by name; ``action_repeat`` among them.
    resume : bool
        Whether to go on with a run.

    Raises
    ------
    InputError
        There is no run to go on with or already one where a new one should begin, its options were others, or
        another process has it open.
    CheckpointError
        The checkpoint cannot be read.
    FileError
        The folder cannot be written into.
    """
    checkpoint = folder / "checkpoint.pt"
    if resume and not checkpoint.exists():
        raise InputError(f"resume: there is no run in {folder}, which has no {checkpoint.name}")
    with locked(output_folder(folder)):
        if not resume and checkpoint.exists():
            raise InputError(f"run: {folder} holds a run; --resume goes on with it, another --run starts anew")
        run = Run(folder, options, read_checkpoint(checkpoint, options) if resume else None)
        with closing(run):
            yield run


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system releases it when the process ends, even if it is killed."""
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise FileError(f"run: cannot lock {folder}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"run: another process is training in {folder}; choose another --run") from None
        except OSError as error:
            raise FileError(f"run: cannot lock {folder}: {error.strerror or error}") from error
        yield


def read_checkpoint(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint that these options go on from."""
    saved = load_tensors(path, "a checkpoint")
    if saved.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {saved.get('format')!r}, expected {FORMAT!r}")
    before = saved["options"]
    changed = [f"{name} is {options[name]}, was {before[name]}" for name in options if options[name] != before[name]]
    if changed:
        raise InputError(f"resume: the run in {path.parent} has other options: {'; '.join(changed)}")
    return saved


def load_tensors(path: Path, what: str) -> dict[str, Any]:
    """Read a file of tensors and plain values that `torch.save` wrote, onto the CPU; nothing else is unpickled."""
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path} cannot be read as {what}: it holds a {type(saved).__name__}")
    return saved
