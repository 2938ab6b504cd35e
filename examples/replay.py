"""Experience replay on the disk: whole episodes, a file each, from which n-step transitions are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samg_fast.errors import CheckpointError
from samg_fast.files import replacing

Array = NDArray[Any]


class Episode:
    """The episode that is running: its images, (3, H, W) uint8 each, and the action and reward after all but the last.

    Parameters
    ----------
    observation : (3 * frame_stack, H, W) uint8
        What the environment's reset returned.
    """

    def __init__(self, observation: Array) -> None:
        self.frames = [observation[-3:].copy()]
        self.actions: list[Array] = []
        self.rewards: list[float] = []

    def add(self, observation: Array, action: Array, reward: float) -> None:
        """Add a step; of the observation, only the newest image is new."""
        self.frames.append(observation[-3:].copy())
        self.actions.append(action)
        self.rewards.append(reward)

    def rows(self, terminated: bool) -> Array:
        """Return the whole episode as one structured array, a row for each image.

        An episode that ended because its time was up is truncated, not `terminated`.
        """
        shapes = self.frames[0].shape, self.actions[0].shape
        fields = [("frame", "u1", shapes[0]), ("action", "f4", shapes[1]), ("reward", "f4"), ("terminated", "?")]
        rows = np.zeros(len(self.frames), fields)
        rows["frame"], rows["action"][:-1], rows["reward"][:-1] = self.frames, self.actions, self.rewards
        rows["terminated"][-2] = terminated
        return rows


def stacked(rows: Array, t: int, frame_stack: int) -> Array:
    """Return image `t` of an episode after those before it, (3 * frame_stack, H, W), as `samg_fast.envs.stack` does."""
    frames: Array = rows["frame"][np.maximum(np.arange(t - frame_stack + 1, t + 1), 0)]
    return frames.reshape(-1, *frames.shape[2:])


def transition(rows: Array, t: int, frame_stack: int, nstep: int, gamma: float) -> tuple[Any, ...]:
    """Return what is learnt from the action at `t`: observation, action, n-step return, discount, next observation.

    Near the end of the episode, the return has fewer than `nstep` rewards, and the next observation is the last one.
    Its value is discounted to nothing if the task terminated there, but counts as ever if the episode was truncated.
    (The published code never draws the last n - 1 steps of an episode.)
    """
    last = min(t + nstep, len(rows) - 1)
    steps = rows[t:last]
    reward = np.float32((gamma ** np.arange(last - t) * steps["reward"]).sum())
    discount = np.float32(0.0 if steps["terminated"][-1] else gamma ** (last - t))
    return stacked(rows, t, frame_stack), steps["action"][0], reward, discount, stacked(rows, last, frame_stack)


@dataclass(frozen=True)
class Stored:
    """An episode on the disk. Its file is not kept open: a process may open far fewer files than there are episodes."""

    path: Path
    dtype: np.dtype[Any]
    offset: int
    rows: int

    @classmethod
    def find(cls, path: Path) -> Stored:
        """Look up where an episode's file has its rows."""
        try:
            rows = np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CheckpointError(f"the run's episode {path} cannot be read: {error}") from error
        return cls(path, rows.dtype, rows.offset, len(rows))

    def __len__(self) -> int:
        return self.rows - 1  # steps; none follows the last image

    def transition(self, t: int, frame_stack: int, nstep: int, gamma: float) -> tuple[Any, ...]:
        """Return what the function `transition` does, reading only the rows that it needs."""
        first, last = max(t - frame_stack + 1, 0), min(t + nstep, len(self))
        count, offset = last + 1 - first, self.offset + first * self.dtype.itemsize
        try:
            # A memory map would end the process where the file was cut short
            rows = np.fromfile(self.path, self.dtype, count, offset=offset)
        except OSError as error:
            raise CheckpointError(f"the run's episode {self.path} cannot be read: {error}") from error
        if len(rows) != count:
            raise CheckpointError(
                f"the run's episode {self.path} was cut short after it was written: "
                f"row {first + len(rows) + 1} of {self.rows} is missing"
            )
        return transition(rows, t - first, frame_stack, nstep, gamma)


class Replay:
    """The newest episodes, at most `capacity` steps of them but one episode at least.

    An image is kept once and stacked when it is drawn; the system's file cache holds what fits into memory. A file
    never changes once it is written, so a checkpoint need only hold the numbers of its episodes: `first` to `end`.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files are; its parent must exist.
    capacity : int
        Steps to keep.
    frame_stack, nstep, discount
        Of the transitions that are drawn.
    first, end : int
        The episodes to begin with; files of others are removed.
    """

    def __init__(
        self,
        folder: Path,
        capacity: int,
        frame_stack: int,
        nstep: int,
        discount: float,
        first: int = 0,
        end: int = 0,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.capacity, self.first = folder, capacity, first
        self._drawing = frame_stack, nstep, discount
        self._episodes = [Stored.find(self._path(number)) for number in range(first, end)]
        self._ends = np.cumsum(list(map(len, self._episodes)), dtype=np.int64)
        self.tidy()

    @property
    def end(self) -> int:
        """The next episode's number."""
        return self.first + len(self._episodes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def add(self, rows: Array) -> None:
        """Write an episode, and forget the oldest where there are too many steps now; their files stay until `tidy`."""
        path = self._path(self.end)
        with replacing(path) as whole:
            np.save(whole, rows)
        self._episodes.append(Stored.find(path))
        lengths = list(map(len, self._episodes))
        while sum(lengths) > self.capacity and len(lengths) > 1:
            del lengths[0], self._episodes[0]
            self.first += 1
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def sample(self, batch: int) -> list[Tensor]:
        """Draw transitions, every step equally likely; return a tensor for each part of a transition."""
        drawn = torch.randint(len(self), (batch,)).numpy()
        which = np.searchsorted(self._ends, drawn, side="right")
        starts = np.concatenate(([0], self._ends))[which]
        columns: list[Array] = []
        for row, (episode, t) in enumerate(zip(which, drawn - starts, strict=True)):
            parts = self._episodes[episode].transition(t, *self._drawing)
            # Written into the batch at once: to keep all parts and stack them at the end takes several times as long
            columns = columns or [np.empty((batch, *part.shape), part.dtype) for part in parts]
            for column, part in zip(columns, parts, strict=True):
                column[row] = part
        return [torch.from_numpy(column) for column in columns]

    def tidy(self) -> None:
        """Remove the files of other episodes; no checkpoint may need them any more."""
        kept = {self._path(number) for number in range(self.first, self.end)}
        for path in set(self.folder.glob("*.npy")) - kept:
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npy"
