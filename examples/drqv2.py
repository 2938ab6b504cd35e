"""DrQ-v2 on masked observations: one agent, one file, trained in one setting and evaluated in all of them.

    python examples/drqv2.py walker_walk --run runs/walker --mask tiny
    python examples/drqv2.py walker_walk --run runs/walker --mask tiny --resume
    tensorboard --logdir runs

The algorithm is that of Yarats, Fergus, Lazaric and Pinto, "Mastering Visual Continuous Control: Improved Data-
Augmented Reinforcement Learning" (arXiv 2107.09645), with the defaults they publish. ``--encoder pieg`` takes the
encoder of Yuan et al., "Pre-Trained Image Encoder for Generalizable Visual Reinforcement Learning" (arXiv 2212.08860).

A *frame* is a control step of the task, a *step* is one of the agent's: ``--action-repeat`` frames. A run is a folder
with the target, the checkpoint, the replay buffer, ``evaluation.jsonl`` and TensorBoard's events. Needs the extra
``train``, and ``adroit`` for the hands.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import samg_fast
from samg_fast import envs
from samg_fast.cli.common import INTERRUPTED, DeviceOption, graceful_interrupt, progress
from samg_fast.devices import machine
from samg_fast.envs.dmc import reference
from samg_fast.envs.settings import check_setting, is_color, is_video
from samg_fast.errors import BackendError, CheckpointError, FileError, InputError, SamgError
from samg_fast.files import replacing, write_text
from samg_fast.wrappers.gymnasium import MaskedObservation

Array = NDArray[Any]
Masking = tuple[samg_fast.Segmenter, samg_fast.Target] | None

FORMAT = "samg-fast drqv2 1"

# The random streams of a run's seed, besides torch's own
TRAINING, EVALUATION, REFERENCE = range(3)


@dataclass(frozen=True)
class Options:
    """The command's options, and so what a run is made of."""

    task: Annotated[str, typer.Argument(help="walker_walk, adroit_pen, ...")]
    run: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run is kept.")] = Path("run")
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False
    setting: Annotated[str, typer.Option(help="The setting to train in.")] = "original"
    mask: Annotated[str, typer.Option(metavar="BUNDLE|none", help="What masks the pictures.")] = "tiny"
    encoder: Annotated[Literal["drqv2", "pieg"], typer.Option(help="What sees the pictures.")] = "drqv2"
    resnet18: Annotated[Path | None, typer.Option(metavar="FILE", help="torchvision's weights, for pieg.")] = None
    clips: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Videos for the video settings.")] = None
    colors: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Or a file, for the colour settings.")] = None
    device: DeviceOption = "auto"
    threads: Annotated[int | None, typer.Option(min=1, help="For the agent, and for the masks.")] = None
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 1

    frames: Annotated[int, typer.Option(min=1, help="As published for easy tasks.")] = 1_100_000
    seed_frames: Annotated[int, typer.Option(min=0, help="Random actions, no learning until then.")] = 4_000
    eval_every: Annotated[int, typer.Option(min=1, help="Frames between two evaluations.")] = 50_000
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes in each setting.")] = 10
    eval_settings: Annotated[str, typer.Option(metavar="NAME,...", help="Settings to evaluate in.")] = ",".join(
        envs.SETTINGS
    )
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Frames between two checkpoints.")] = 50_000

    size: Annotated[int, typer.Option(min=1, help="Side of the pictures in pixels.")] = 84
    frame_stack: Annotated[int, typer.Option(min=1, help="Pictures in an observation.")] = 3
    action_repeat: Annotated[int, typer.Option(min=1, help="Frames in a step.")] = 2
    buffer: Annotated[int, typer.Option(min=1, help="Steps that are remembered.")] = 1_000_000
    nstep: Annotated[int, typer.Option(min=1, help="Rewards before the bootstrap.")] = 3
    discount: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of a reward a step later.")] = 0.99
    batch: Annotated[int, typer.Option(min=1, help="Transitions in an update.")] = 256
    update_every: Annotated[int, typer.Option(min=1, help="Steps between two updates.")] = 2
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Adam's.")] = 1e-4
    tau: Annotated[float, typer.Option(min=0.0, max=1.0, help="How far the target critic follows.")] = 0.01
    feature_dim: Annotated[int, typer.Option(min=1, help="Features of a picture, for actor and critics.")] = 50
    hidden_dim: Annotated[int, typer.Option(min=1, help="Width of actor and critics.")] = 1024
    shift: Annotated[int, typer.Option(min=0, help="Random shift in pixels, either way.")] = 4
    std_start: Annotated[float, typer.Option(min=0.0, help="Exploration noise at first.")] = 1.0
    std_end: Annotated[float, typer.Option(min=0.0, help="Exploration noise in the end.")] = 0.1
    std_steps: Annotated[int, typer.Option(min=1, help="Steps until then, as for easy tasks.")] = 100_000
    std_clip: Annotated[float, typer.Option(min=0.0, help="Clips the noise of actions to learn from.")] = 0.3

    def steps(self, frames: int) -> int:
        """Return how many of the agent's steps so many frames are, one at least."""
        return max(1, frames // self.action_repeat)

    def std(self, step: int) -> float:
        """Return the exploration noise at a step."""
        done = min(step / self.std_steps, 1.0)
        return (1 - done) * self.std_start + done * self.std_end

    def settings(self) -> list[str]:
        """Return the settings to evaluate in."""
        return [check_setting(name.strip()) for name in self.eval_settings.split(",")]

    def looks(self, setting: str) -> dict[str, str | None]:
        """Return what makes a setting's looks, besides its name."""
        return {
            "clips": str(self.clips) if self.clips and is_video(setting) else None,
            "colors": str(self.colors) if self.colors and is_color(setting) else None,
        }

    def lasting(self) -> dict[str, Any]:
        """Return what cannot change when a run goes on: all but where, how long, and what is measured on the way."""
        free = {"run", "resume", "resnet18", "clips", "colors", "device", "threads", "frames", "checkpoint_every"}
        return {name: value for name, value in asdict(self).items() if name not in free and not name.startswith("eval")}


# --- Replay ---


class Episode:
    """An episode that is running: pictures, (3, H, W) uint8 each, and what was done and won after each but the last."""

    def __init__(self, observation: Array) -> None:
        self.frames = [observation[-3:].copy()]
        self.actions: list[Array] = []
        self.rewards: list[float] = []
        self.learnt: list[dict[str, Tensor]] = []
        self.seconds = 0.0

    def add(self, observation: Array, action: Array, reward: float) -> None:
        """Add a step; the newest picture of the observation is new."""
        self.frames.append(observation[-3:].copy())
        self.actions.append(action)
        self.rewards.append(reward)

    def rows(self, terminated: bool) -> Array:
        """Return the whole episode as one structured array, a row for each picture.

        An episode that was cut off, by a limit of time, is not `terminated`: it would have gone on.
        """
        shapes = self.frames[0].shape, self.actions[0].shape
        fields = [("frame", "u1", shapes[0]), ("action", "f4", shapes[1]), ("reward", "f4"), ("terminated", "?")]
        rows = np.zeros(len(self.frames), fields)
        rows["frame"], rows["action"][:-1], rows["reward"][:-1] = self.frames, self.actions, self.rewards
        rows["terminated"][-2] = terminated
        return rows

    def figures(self, action_repeat: int) -> dict[str, float]:
        """Return what there is to watch; what learning reports as its mean over the episode."""
        length = len(self.actions) * action_repeat
        figures = {"return": sum(self.rewards), "length": length, "frames_per_second": length / self.seconds}
        names = self.learnt[0] if self.learnt else ()
        return figures | {name: float(torch.stack([each[name] for each in self.learnt]).mean()) for name in names}


def stacked(rows: Array, t: int, count: int) -> Array:
    """Return picture `t` of an episode and those before it as `samg_fast.envs.stack` does, (3 * count, H, W)."""
    frames: Array = rows["frame"][np.maximum(np.arange(t - count + 1, t + 1), 0)]
    return frames.reshape(-1, *frames.shape[2:])


def transition(rows: Array, t: int, count: int, nstep: int, gamma: float) -> tuple[Any, ...]:
    """Return what is learnt from the action at `t`: observation, action, return, discount, next observation.

    The n-step return ends with its episode at the latest: near the end it has fewer rewards, and goes on from the last
    picture. That picture's value counts for nothing if the task itself ended there, and as ever if the episode was
    merely cut off: truncation is not termination. (The published code leaves out the last n - 1 starts.)
    """
    last = min(t + nstep, len(rows) - 1)
    steps = rows[t:last]
    reward = np.float32((gamma ** np.arange(last - t) * steps["reward"]).sum())
    discount = np.float32(0.0 if steps["terminated"][-1] else gamma ** (last - t))
    return stacked(rows, t, count), steps["action"][0], reward, discount, stacked(rows, last, count)


@dataclass(frozen=True)
class Stored:
    """An episode on the disk. Its file is not kept open: a process may have far fewer of those than episodes."""

    path: Path
    dtype: np.dtype[Any]
    offset: int
    rows: int

    @classmethod
    def find(cls, path: Path) -> Stored:
        """Look where an array file has its rows."""
        try:
            rows = np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CheckpointError(f"the run's episode {path} cannot be read: {error}") from error
        return cls(path, rows.dtype, rows.offset, len(rows))

    def __len__(self) -> int:
        return self.rows - 1  # steps; the last picture is followed by none

    def transition(self, t: int, count: int, nstep: int, gamma: float) -> tuple[Any, ...]:
        """Read what `transition` returns, from the few rows that it takes."""
        first, last = max(t - count + 1, 0), min(t + nstep, len(self))
        offset = self.offset + first * self.dtype.itemsize
        try:
            rows = np.fromfile(self.path, self.dtype, last + 1 - first, offset=offset)
        except OSError as error:
            raise CheckpointError(f"the run's episode {self.path} cannot be read: {error}") from error
        return transition(rows, t - first, count, nstep, gamma)


class Replay:
    """Whole episodes on the disk, one file each; the oldest are forgotten first.

    A picture is kept once and stacked when it is drawn, and the system holds in memory what it has room for. A file
    never changes, so a checkpoint need only say which there are: `first` to `end`.
    """

    def __init__(self, folder: Path, options: Options, first: int = 0, end: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.options, self.first = folder, options, first
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
        """Remember an episode."""
        path = self._path(self.end)
        with replacing(path) as whole:
            np.save(whole, rows)
        self._episodes.append(Stored.find(path))
        lengths = list(map(len, self._episodes))
        while sum(lengths) > self.options.buffer and len(lengths) > 1:
            del lengths[0], self._episodes[0]
            self.first += 1
        self._ends = np.cumsum(lengths, dtype=np.int64)

    def sample(self, batch: int) -> list[Tensor]:
        """Draw transitions, all of them equally likely."""
        drawn = torch.randint(len(self), (batch,)).numpy()
        which = np.searchsorted(self._ends, drawn, side="right")
        starts = np.concatenate(([0], self._ends))[which]
        returns = self.options.frame_stack, self.options.nstep, self.options.discount
        pairs = zip(which, drawn - starts, strict=True)
        columns = zip(*(self._episodes[n].transition(t, *returns) for n, t in pairs), strict=True)
        return [torch.from_numpy(np.stack(column)) for column in columns]

    def tidy(self) -> None:
        """Remove the files of other episodes; no checkpoint may be in need of them any more."""
        kept = {self._path(number) for number in range(self.first, self.end)}
        for path in set(self.folder.glob("*.npy")) - kept:
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npy"


# --- Agent ---


def random_shift(pictures: Tensor, most: int) -> Tensor:
    """Shift each of (B, C, H, W) pictures by up to `most` whole pixels in each direction; their edges are repeated."""
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (most,) * 4, mode="replicate")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = torch.randint(0, 2 * most + 1, (count, 1, 1, 2), device=pictures.device)
    centres = torch.stack((columns, rows), -1).to(pictures.device) + corners + 0.5
    sides = torch.tensor((width + 2 * most, height + 2 * most), device=pictures.device)
    return F.grid_sample(padded, 2 * centres / sides - 1, mode="bilinear", align_corners=False)


def truncated_normal(mean: Tensor, std: float, clip: float | None = None) -> Tensor:
    """Add noise, itself clipped where `clip` is given, and keep within -1 and 1; the gradient passes unhindered."""
    noise = torch.randn_like(mean) * std
    action = mean + (noise if clip is None else noise.clamp(-clip, clip))
    return action - action.detach() + action.detach().clamp(-1 + 1e-6, 1 - 1e-6)


def orthogonal(module: nn.Module) -> None:
    """Initialise a layer as DrQ-v2 does."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        gain = nn.init.calculate_gain("relu") if isinstance(module, nn.Conv2d) else 1.0
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DrqEncoder(nn.Module):
    """DrQ-v2's encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, stride in ((channels, 2), (32, 1), (32, 1), (32, 1)):
            layers += [nn.Conv2d(inputs, 32, 3, stride), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.apply(orthogonal)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) pictures from 0 to 255 to (B, D) features."""
        features: Tensor = self.layers(pictures / 255 - 0.5)
        return features


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


class ResNet18(nn.Module):
    """The early layers of ResNet-18, with torchvision's names and from its file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))

        saved, own = load(path, "torchvision's resnet18"), self.state_dict()
        # Older files lack batch normalisation's counters, which PyTorch adds
        needed = {name: tuple(each.shape) for name, each in own.items() if not name.endswith("num_batches_tracked")}
        found = {name: tuple(getattr(each, "shape", ())) for name, each in saved.items()}
        wrong = [f"{name} is {found.get(name, 'missing')}" for name in needed if found.get(name) != needed[name]]
        later = ("layer3.", "layer4.", "fc.")
        wrong += [f"{name} is none of its tensors" for name in found if name not in own and not name.startswith(later)]
        if wrong:
            raise CheckpointError(f"{path} is not torchvision's resnet18: {'; '.join(wrong)}")
        self.load_state_dict({name: saved[name] for name in needed})

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 128, H / 8, W / 8)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        features: Tensor = self.layer2(self.layer1(x))
        return features


class PiegEncoder(nn.Module):
    """PIE-G's encoder: early features of every picture but the first, and how they differ from the picture's before.

    As in the authors' code the weights are frozen, while batch normalisation goes by the batch when the agent learns,
    and by the running mean of those batches when it acts.
    """

    def __init__(self, resnet: ResNet18, channels: int, size: int) -> None:
        super().__init__()
        self.resnet = resnet.requires_grad_(False)
        side = -(-size // 8)
        self.head = nn.Sequential(nn.Linear(2 * (channels // 3 - 1) * 128 * side * side, 1024), nn.LayerNorm(1024))
        self.head.apply(orthogonal)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3 n, H, W) pictures from 0 to 255, n of them, to (B, 1024) features."""
        count, channels, *size = pictures.shape
        with torch.no_grad():
            # The authors' range; not ImageNet's mean and deviation
            maps = self.resnet(pictures.reshape(-1, 3, *size) / 255 - 0.5)
        maps = maps.reshape(count, channels // 3, *maps.shape[1:])
        later = maps[:, 1:]
        features: Tensor = self.head(torch.cat((later, later - maps[:, :-1]), 1).flatten(1))
        return features


class Head(nn.Module):
    """What actor and critics have in common: a trunk that narrows the features, and layers behind it."""

    def __init__(self, inputs: int, more: int, outputs: int, copies: int, options: Options) -> None:
        super().__init__()
        narrow, hidden = options.feature_dim, options.hidden_dim
        self.trunk = nn.Sequential(nn.Linear(inputs, narrow), nn.LayerNorm(narrow), nn.Tanh())
        self.layers = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(narrow + more, hidden), nn.ReLU()),
                *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)),
            )
            for _ in range(copies)
        )
        self.apply(orthogonal)


class Actor(Head):
    """The policy's mean."""

    def __init__(self, inputs: int, actions: int, options: Options) -> None:
        super().__init__(inputs, 0, actions, 1, options)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) features to (B, A) actions from -1 to 1."""
        return torch.tanh(self.layers[0](self.trunk(features)))


class Critic(Head):
    """Twin critics."""

    def __init__(self, inputs: int, actions: int, options: Options) -> None:
        super().__init__(inputs, actions, 1, 2, options)

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """(B, D) features and (B, A) actions to (2, B) values."""
        inputs = torch.cat((self.trunk(features), actions), -1)
        return torch.cat([twin(inputs) for twin in self.layers], -1).T


class Agent:
    """DrQ-v2: an actor and two critics that learn from n-step returns on randomly shifted pictures."""

    PARTS = ("encoder", "actor", "critic", "target_critic", "actor_adam", "critic_adam")

    def __init__(
        self, encoder: nn.Module, shape: tuple[int, ...], actions: int, options: Options, device: torch.device
    ) -> None:
        self.options, self.device, self.encoder = options, device, encoder.to(device)
        with torch.no_grad():
            features = self.encoder.eval()(torch.zeros(1, *shape, device=device)).shape[1]
        self.actor = Actor(features, actions, options).to(device)
        self.critic = Critic(features, actions, options).to(device)
        self.target_critic = Critic(features, actions, options).to(device)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), options.learning_rate)
        # The encoder learns from the critics alone
        seen = [each for each in self.encoder.parameters() if each.requires_grad]
        self.critic_adam = torch.optim.Adam([*seen, *self.critic.parameters()], options.learning_rate)

    @torch.no_grad()
    def act(self, observation: Array, std: float | None = None) -> Array:
        """Return the action, (A,) float32, for an observation, (C, H, W) uint8; with noise if `std` is given."""
        mean = self.actor(self.encoder.eval()(torch.as_tensor(observation, device=self.device)[None]))[0]
        action: Array = (mean if std is None else truncated_normal(mean, std)).cpu().numpy()
        return action

    def update(self, batch: list[Tensor], std: float) -> dict[str, Tensor]:
        """Learn from a batch of transitions; return what there is to watch, a number each."""
        options, encoder = self.options, self.encoder.train()
        pictures, actions, rewards, discounts, next_pictures = (each.to(self.device) for each in batch)
        features = encoder(random_shift(pictures.float(), options.shift))
        with torch.no_grad():
            next_features = encoder(random_shift(next_pictures.float(), options.shift))
            next_actions = truncated_normal(self.actor(next_features), std, options.std_clip)
            target = rewards + discounts * self.target_critic(next_features, next_actions).amin(0)

        values = self.critic(features, actions)
        critic_loss = (values - target).square().mean(1).sum()
        self._descend(critic_loss, self.critic_adam)

        features = features.detach()
        proposed = truncated_normal(self.actor(features), std, options.std_clip)
        actor_loss = -self.critic(features, proposed).amin(0).mean()
        self._descend(actor_loss, self.actor_adam)

        with torch.no_grad():
            for slow, fast in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, options.tau)
        watched = {"critic_loss": critic_loss, "actor_loss": actor_loss, "value": values.mean()}
        return {name: each.detach() for name, each in watched.items()}

    def state(self) -> dict[str, Any]:
        """Return all that learning has changed."""
        return {name: getattr(self, name).state_dict() for name in self.PARTS}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` was taken from."""
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])

    @staticmethod
    def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


# --- Run ---


def load(path: Path, what: str) -> dict[str, Any]:
    """Read a file of tensors that `torch.save` wrote."""
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, dict):
        raise CheckpointError(f"{path} cannot be read as {what}: it holds a {type(saved).__name__}")
    return saved


class Run:
    """How far a run has come, and its folder: what is written there, and read when the run goes on.

    A checkpoint does not keep the `unfinished` steps of the episode that is running.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.folder = options, options.run
        self._checkpoint, self._evaluation = self.folder / "checkpoint.pt", self.folder / "evaluation.jsonl"
        if not options.resume and self._checkpoint.exists():
            raise InputError(f"run: {self.folder} holds a run; --resume goes on with it, another --run starts anew")
        self._saved = self._read() if options.resume else None
        reached: tuple[int, int, int] = (0, 0, 0) if self._saved is None else self._saved["reached"]
        self.step, self.episode, self.unfinished = reached
        self._rows: list[dict[str, Any]] = []
        if self._saved is not None and self._evaluation.exists():
            rows = map(json.loads, self._evaluation.read_text(encoding="utf-8").splitlines())
            # Later ones are of the time that was lost when the run was cut off
            self._rows = [row for row in rows if row["frame"] <= self.frame]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"run: cannot write {self.folder}: {error.strerror or error}") from error

    @property
    def frame(self) -> int:
        """How many frames there were."""
        return self.step * self.options.action_repeat

    def target(self, segmenter: samg_fast.Segmenter) -> samg_fast.Target:
        """Return the run's one target, which is found on a picture without distraction when the run begins."""
        path = self.folder / "target.safetensors"
        if self._saved is None:
            options = self.options
            segmenter.identify(*reference(options.task, options.size, derived(options.seed, REFERENCE))).save(path)
        return samg_fast.Target.load(path)

    def replay(self) -> Replay:
        """Open the run's episodes."""
        numbers = {} if self._saved is None else self._saved["episodes"]
        return Replay(self.folder / "replay", self.options, **numbers)

    def restore(self, agent: Agent) -> None:
        """Give an agent what it had learnt, and torch the random numbers that come next."""
        if self._saved is None:
            return
        agent.restore(self._saved["agent"])
        torch.set_rng_state(self._saved["random"])
        if agent.device.type == "cuda" and self._saved["cuda_random"] is not None:
            torch.cuda.set_rng_state(self._saved["cuda_random"], agent.device)

    def save(self, agent: Agent, replay: Replay) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "format": FORMAT,
            "options": self.options.lasting(),
            "reached": (self.step, self.episode, self.unfinished),
            "episodes": {"first": replay.first, "end": replay.end},
            "agent": agent.state(),
            # Nothing else is random here: batches are drawn by torch too, and each environment has a seed of its own.
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(agent.device) if agent.device.type == "cuda" else None,
        }
        with replacing(self._checkpoint) as path:
            torch.save(state, path)
        replay.tidy()

    def report(self, measured: dict[str, Any], figures: dict[str, Any]) -> None:
        """Write a row to ``evaluation.jsonl``, in place of the one where the same was measured."""
        others = [row for row in self._rows if any(row.get(name) != value for name, value in measured.items())]
        self._rows = [*others, measured | figures]
        write_text(self._evaluation, "".join(json.dumps(each) + "\n" for each in self._rows))

    def _read(self) -> dict[str, Any]:
        if not self._checkpoint.exists():
            raise InputError(f"resume: there is no run in {self.folder}, which has no {self._checkpoint.name}")
        saved, options = load(self._checkpoint, "a checkpoint"), self.options.lasting()
        if saved.get("format") != FORMAT:
            raise CheckpointError(f"{self._checkpoint} has format {saved.get('format')!r}, expected {FORMAT!r}")
        before = saved["options"]
        changed = [
            f"{name} is {options[name]}, was {before[name]}" for name in options if options[name] != before[name]
        ]
        if changed:
            raise InputError(f"resume: the run in {self.folder} has other options: {'; '.join(changed)}")
        return saved


def make_encoder(options: Options) -> nn.Module:
    """Make the encoder that was asked for."""
    channels = 3 * options.frame_stack
    if options.encoder == "drqv2":
        if options.size < 15:
            raise InputError(f"size is {options.size}: DrQ-v2's encoder needs pictures of 15 pixels or more")
        return DrqEncoder(channels)
    if options.resnet18 is None:
        raise InputError(
            "encoder pieg needs --resnet18 FILE, torchvision's resnet18-f37072fd.pth: "
            "https://download.pytorch.org/models/resnet18-f37072fd.pth"
        )
    if options.frame_stack < 2:
        raise InputError("encoder pieg compares pictures: --frame-stack must be 2 or more, not 1")
    return PiegEncoder(ResNet18(options.resnet18), channels, options.size)


def find_device(name: str) -> torch.device:
    """Return the device for the agent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def derived(seed: int, *stream: int) -> int:
    """Return the seed of one of a run's random streams, 0 to 2**32 - 1."""
    return int(np.random.SeedSequence((seed, *stream)).generate_state(1)[0])


@contextmanager
def environment(options: Options, masking: Masking, setting: str, seed: int) -> Iterator[Any]:
    """Open an environment whose observations are masked pictures, (3 * frame_stack, H, W) uint8; close it after use."""
    seen: dict[str, Any] = {"setting": setting, "clips": options.clips, "colors": options.colors, "size": options.size}
    repeat = options.action_repeat
    with closing(envs.make(options.task, action_repeat=repeat, frame_stack=None, seed=seed, **seen)) as plain:
        # Every picture is masked once, and stacked then
        yield envs.stack(plain if masking is None else MaskedObservation(plain, *masking), options.frame_stack)


@dataclass
class Trainer:
    """What training goes on with; `stop` tells whether it should end early."""

    run: Run
    env: Any
    masking: Masking
    agent: Agent
    replay: Replay
    writer: SummaryWriter
    stop: Callable[[], bool]

    def learn(self) -> None:
        """Act, remember and learn until the frames are used up or Ctrl-C was pressed; there is a checkpoint then."""
        run, options = self.run, self.run.options
        total, start = options.steps(options.frames), run.step
        episode: Episode | None = None
        with progress("training", max(0, total - start)) as advance:
            while not self.stop():
                done = run.step >= total
                if run.step > start and (done or run.step % options.steps(options.checkpoint_every) == 0):
                    run.save(self.agent, self.replay)
                if done or (run.step and run.step % options.steps(options.eval_every) == 0):
                    self.evaluate()
                if done:
                    return

                began = time.perf_counter()
                if episode is None:
                    observation, _ = self.env.reset()
                    episode = Episode(observation)
                action = self.choose(observation, episode)
                observation, reward, terminated, truncated, _ = self.env.step(action)
                episode.add(observation, action, reward)
                episode.seconds += time.perf_counter() - began
                run.step += 1
                run.unfinished += 1
                advance()
                if terminated or truncated:
                    self.replay.add(episode.rows(terminated))
                    run.episode += 1
                    run.unfinished = 0
                    self.report(episode)
                    episode = None
            run.save(self.agent, self.replay)

    def choose(self, observation: Array, episode: Episode) -> Array:
        """Return an action that explores; learn before it where it is time to."""
        options, step = self.run.options, self.run.step
        if step < options.seed_frames // options.action_repeat:
            return (2 * torch.rand(self.env.action_space.shape) - 1).numpy()
        action = self.agent.act(observation, options.std(step))
        # Whole episodes are remembered: before the first has ended there is nothing to learn from
        if step % options.update_every == 0 and len(self.replay):
            episode.learnt.append(self.agent.update(self.replay.sample(options.batch), options.std(step)))
        return action

    def report(self, episode: Episode) -> None:
        """Say how an episode of training went."""
        run, figures = self.run, episode.figures(self.run.options.action_repeat)
        for name, figure in {**figures, "std": run.options.std(run.step), "steps": len(self.replay)}.items():
            self.writer.add_scalar(f"train/{name}", figure, run.frame)
        typer.echo(f"frame {run.frame}: return {figures['return']:.1f}, {figures['frames_per_second']:.0f} frames/s")

    def evaluate(self) -> None:
        """Play some episodes in every setting, the same ones each time, and say how they went."""
        run, options = self.run, self.run.options
        for setting in options.settings():
            with environment(options, self.masking, setting, derived(options.seed, EVALUATION)) as env:
                played = [self.play(env) for _ in range(options.eval_episodes) if not self.stop()]
            if self.stop():
                return
            returns = [total for total, _ in played]
            figures = {"mean": float(np.mean(returns)), "std": float(np.std(returns))}
            if played[0][1] is not None:
                figures["success"] = float(np.mean([succeeded for _, succeeded in played]))
            for name, figure in figures.items():
                self.writer.add_scalar(f"evaluation/{setting}/{name}", figure, run.frame)
            measured = {"frame": run.frame, "setting": setting, **options.looks(setting)}
            run.report(measured, {**figures, "returns": returns})
            typer.echo(f"frame {run.frame}: {setting} {figures['mean']:.1f} ± {figures['std']:.1f} of {len(returns)}")

    def play(self, env: Any) -> tuple[float, bool | None]:
        """Play an episode without noise; return the sum of rewards and, of an Adroit hand, whether it succeeded."""
        (observation, _), total, succeeded, over = env.reset(), 0.0, None, False
        while not over and not self.stop():
            observation, reward, terminated, truncated, info = env.step(self.agent.act(observation))
            total, over = total + reward, terminated or truncated
            if "success" in info:
                succeeded = bool(succeeded or info["success"])
        return total, succeeded


def train(options: Options) -> None:
    """Begin a run, or go on with it."""
    # A wrong name shall not wait for the first evaluation
    envs.find_task(options.task)
    check_setting(options.setting)
    options.settings()
    device = find_device(options.device)
    # Segmenter and agent take turns. Each has a pool of threads that spin for a while when their work is done, and so
    # take the cores from the other's: with half of them each there is room for both.
    threads = options.threads or max(1, machine.cores() // 2)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    encoder, run = make_encoder(options), Run(options)

    with ExitStack() as stack:
        stop = stack.enter_context(graceful_interrupt())
        masking: Masking = None
        if options.mask != "none":
            segmenter = stack.enter_context(samg_fast.load(options.mask, device=options.device, threads=threads))
            typer.echo(segmenter.describe())
            masking = segmenter, run.target(segmenter)
        # A run that goes on meets other initial states than when it began
        seed = derived(options.seed, TRAINING, run.episode)
        env = stack.enter_context(environment(options, masking, options.setting, seed))
        replay = run.replay()
        agent = Agent(encoder, env.observation_space.shape, env.action_space.shape[0], options, device)
        run.restore(agent)
        if options.resume:
            lost = run.unfinished * options.action_repeat
            typer.echo(f"goes on at frame {run.frame}; of the episode that was running, {lost} frames are not kept")
            run.unfinished = 0
        writer = stack.enter_context(SummaryWriter(str(options.run), purge_step=run.frame + 1))
        Trainer(run, env, masking, agent, replay, writer, stop).learn()
        if stop():
            typer.echo(f"interrupted at frame {run.frame}: go on with --resume", err=True)
            raise typer.Exit(INTERRUPTED)


app = typer.Typer(add_completion=False)


def command(**values: Any) -> None:
    """Train DrQ-v2 on masked observations in one setting, and evaluate it in others."""
    try:
        train(Options(**values))
    except SamgError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted: what was written before is whole", err=True)
        raise typer.Exit(INTERRUPTED) from None


# Typer reads the options from the dataclass, where they stand once
command.__signature__ = inspect.signature(Options, eval_str=True)  # type: ignore[attr-defined]
app.command()(command)

if __name__ == "__main__":
    app()
