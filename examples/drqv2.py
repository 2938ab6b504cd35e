"""DrQ-v2 on masked observations: trained in one setting, evaluated in all of them.

    python examples/drqv2.py walker_walk --run runs/walker --mask tiny
    python examples/drqv2.py walker_walk --run runs/walker --mask tiny --resume
    tensorboard --logdir runs

The algorithm is that of Yarats, Fergus, Lazaric and Pinto, "Mastering Visual Continuous Control: Improved Data-
Augmented Reinforcement Learning" (arXiv 2107.09645), with the defaults they publish. It imports from beside this file
`replay.py`, the replay buffer on the disk; `run_folder.py`, checkpoints and how a run goes on; `evaluation.py`; and
`pieg.py`, PIE-G's encoder.

A *frame* is a control step of the task, a *step* is one of the agent's: ``--action-repeat`` frames. Needs the extra
``train``, and ``adroit`` for the hands.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from evaluation import evaluate
from numpy.typing import NDArray
from pieg import PiegEncoder
from replay import Episode, Replay
from run_folder import Run, open_run
from torch import Tensor, nn

import samg_fast
from samg_fast import envs
from samg_fast.cli.common import INTERRUPTED, DeviceOption, graceful_interrupt, progress
from samg_fast.devices import machine
from samg_fast.envs.dmc import reference
from samg_fast.envs.settings import check_setting, is_color, is_video
from samg_fast.errors import BackendError, InputError, SamgError
from samg_fast.wrappers.gymnasium import MaskedObservation

Array = NDArray[Any]
Masking = tuple[samg_fast.Segmenter, samg_fast.Target] | None

# The random streams of a run's seed, besides torch's own
TRAINING, EVALUATION, REFERENCE = range(3)


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    task: Annotated[str, typer.Argument(help="walker_walk, adroit_pen, ...")]
    run: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run is kept.")] = Path("run")
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False
    setting: Annotated[str, typer.Option(help="The setting to train in.")] = "original"
    mask: Annotated[str, typer.Option(metavar="BUNDLE|none", help="What masks the images.")] = "tiny"
    encoder: Annotated[Literal["drqv2", "pieg"], typer.Option(help="DrQ-v2's own, or PIE-G's.")] = "drqv2"
    resnet18: Annotated[Path | None, typer.Option(metavar="FILE", help="torchvision's weights, for pieg.")] = None
    clips: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Videos for the video settings.")] = None
    colors: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Or a file, for the colour settings.")] = None
    device: DeviceOption = "auto"
    threads: Annotated[int | None, typer.Option(min=1, help="For the agent, and for the masks.")] = None
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 1

    frames: Annotated[int, typer.Option(min=1, help="Of training; as published for easy tasks.")] = 1_100_000
    seed_frames: Annotated[int, typer.Option(min=0, help="Random actions, no learning until then.")] = 4_000
    eval_every: Annotated[int, typer.Option(min=1, help="Frames between two evaluations.")] = 50_000
    eval_episodes: Annotated[int, typer.Option(min=1, help="Episodes in each setting.")] = 10
    eval_settings: Annotated[str, typer.Option(metavar="NAME,...", help="Those settings.")] = ",".join(envs.SETTINGS)
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Frames between two checkpoints.")] = 50_000

    size: Annotated[int, typer.Option(min=1, help="Side of the images in pixels.")] = 84
    frame_stack: Annotated[int, typer.Option(min=1, help="Images in an observation.")] = 3
    action_repeat: Annotated[int, typer.Option(min=1, help="Frames in a step.")] = 2
    buffer: Annotated[int, typer.Option(min=1, help="Steps that are remembered.")] = 1_000_000
    nstep: Annotated[int, typer.Option(min=1, help="Rewards before the bootstrap.")] = 3
    discount: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of a reward a step later.")] = 0.99
    batch: Annotated[int, typer.Option(min=1, help="Transitions in an update.")] = 256
    update_every: Annotated[int, typer.Option(min=1, help="Steps between two updates.")] = 2
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Adam's.")] = 1e-4
    tau: Annotated[float, typer.Option(min=0.0, max=1.0, help="How far the target critic follows.")] = 0.01
    feature_dim: Annotated[int, typer.Option(min=1, help="Features that actor and critics see.")] = 50
    hidden_dim: Annotated[int, typer.Option(min=1, help="Width of actor and critics.")] = 1024
    shift: Annotated[int, typer.Option(min=0, help="Random shift in pixels, either way.")] = 4
    std_start: Annotated[float, typer.Option(min=0.0, help="Exploration noise at first.")] = 1.0
    std_end: Annotated[float, typer.Option(min=0.0, help="Exploration noise in the end.")] = 0.1
    std_steps: Annotated[int, typer.Option(min=1, help="Steps until then, as for easy tasks.")] = 100_000
    std_clip: Annotated[float, typer.Option(min=0.0, help="Clips the noise of actions to learn from.")] = 0.3

    def steps(self, frames: int) -> int:
        """Return how many steps of the agent so many frames are, at least one."""
        return max(1, frames // self.action_repeat)

    def std(self, step: int) -> float:
        """Return the standard deviation of the exploration noise at a step."""
        done = min(step / self.std_steps, 1.0)
        return (1 - done) * self.std_start + done * self.std_end

    def settings(self) -> list[str]:
        """Return the settings to evaluate in."""
        return [check_setting(name.strip()) for name in self.eval_settings.split(",")]

    def assets(self, setting: str) -> dict[str, str | None]:
        """Return the files that a setting takes its looks from."""
        return {
            "clips": str(self.clips) if self.clips and is_video(setting) else None,
            "colors": str(self.colors) if self.colors and is_color(setting) else None,
        }

    def lasting(self) -> dict[str, Any]:
        """Return the options that cannot change when a run goes on: those that decide what is learnt."""
        free = {"run", "resume", "resnet18", "clips", "colors", "device", "threads", "frames", "checkpoint_every"}
        return {name: value for name, value in asdict(self).items() if name not in free and not name.startswith("eval")}


# --- Agent ---


def random_shift(images: Tensor, limit: int) -> Tensor:
    """Shift each of (B, C, H, W) images by up to `limit` whole pixels in each direction; their edges are repeated."""
    count, _, height, width = images.shape
    padded = F.pad(images, (limit,) * 4, mode="replicate")
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = torch.randint(0, 2 * limit + 1, (count, 1, 1, 2), device=images.device)
    centres = torch.stack((columns, rows), -1).to(images.device) + corners + 0.5
    sides = torch.tensor((width + 2 * limit, height + 2 * limit), device=images.device)
    return F.grid_sample(padded, 2 * centres / sides - 1, mode="bilinear", align_corners=False)


def truncated_normal(mean: Tensor, std: float, clip: float | None = None) -> Tensor:
    """Add noise, clipped to `clip` if given, and clip the sum to -1..1; the gradient is as if nothing was clipped."""
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

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) images from 0 to 255 to (B, D) features."""
        features: Tensor = self.layers(images / 255 - 0.5)
        return features


class Head(nn.Module):
    """The base of actor and critics: a trunk that narrows the features, and copies of the layers behind it."""

    def __init__(self, inputs: int, extra: int, outputs: int, copies: int, options: Options) -> None:
        super().__init__()
        narrow, hidden = options.feature_dim, options.hidden_dim
        self.trunk = nn.Sequential(nn.Linear(inputs, narrow), nn.LayerNorm(narrow), nn.Tanh())
        self.layers = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(narrow + extra, hidden), nn.ReLU()),
                *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)),
            )
            for _ in range(copies)
        )
        self.apply(orthogonal)


class Actor(Head):
    """The policy's mean."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) features to (B, A) actions from -1 to 1."""
        return torch.tanh(self.layers[0](self.trunk(features)))


class Critic(Head):
    """Twin critics."""

    def forward(self, features: Tensor, actions: Tensor) -> Tensor:
        """(B, D) features and (B, A) actions to (2, B) values."""
        inputs = torch.cat((self.trunk(features), actions), -1)
        return torch.cat([twin(inputs) for twin in self.layers], -1).T


class Agent:
    """DrQ-v2: an actor and two critics that learn from n-step returns on randomly shifted images."""

    def __init__(
        self, encoder: nn.Module, shape: tuple[int, ...], actions: int, options: Options, device: torch.device
    ) -> None:
        self.options, self.device, self.encoder = options, device, encoder.to(device)
        with torch.no_grad():
            features = self.encoder.eval()(torch.zeros(1, *shape, device=device)).shape[1]
        self.actor = Actor(features, extra=0, outputs=actions, copies=1, options=options).to(device)
        self.critic = Critic(features, extra=actions, outputs=1, copies=2, options=options).to(device)
        self.target_critic = Critic(features, extra=actions, outputs=1, copies=2, options=options).to(device)
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
        """Learn from a batch of transitions, as `Replay.sample` returns it; return losses and values to be logged."""
        options, encoder = self.options, self.encoder.train()
        images, actions, rewards, discounts, next_images = (each.to(self.device) for each in batch)
        features = encoder(random_shift(images.float(), options.shift))
        with torch.no_grad():
            next_features = encoder(random_shift(next_images.float(), options.shift))
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
        logged = {"critic_loss": critic_loss, "actor_loss": actor_loss, "value": values.mean()}
        return {name: each.detach() for name, each in logged.items()}

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Return all that learning changes, for a checkpoint."""
        names = ("encoder", "actor", "critic", "target_critic", "actor_adam", "critic_adam")
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def _descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


# --- Training ---


@dataclass
class Trainer:
    """Collects episodes, learns from them, and evaluates what was learnt; `stop` tells whether Ctrl-C was pressed."""

    options: Options
    run: Run
    env: Any
    masking: Masking
    agent: Agent
    replay: Replay
    stop: Callable[[], bool]

    def train(self) -> None:
        """Act and learn until the frames are used up or Ctrl-C was pressed; either way, end with a checkpoint."""
        run, options = self.run, self.options
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
                    episode, learnt, seconds = Episode(observation), [], 0.0
                action = self.act(observation)
                learnt += self.learn()
                observation, reward, terminated, truncated, _ = self.env.step(action)
                episode.add(observation, action, reward)
                seconds += time.perf_counter() - began
                run.count(finished=terminated or truncated)
                advance()
                if terminated or truncated:
                    self.replay.add(episode.rows(terminated))
                    self.report(episode, learnt, seconds)
                    episode = None
            run.save(self.agent, self.replay)

    @property
    def seeding(self) -> bool:
        """Whether it is too early to learn, and actions are random."""
        return self.run.step < self.options.seed_frames // self.options.action_repeat

    def act(self, observation: Array) -> Array:
        """Return an action that explores."""
        if self.seeding:
            return (2 * torch.rand(self.env.action_space.shape) - 1).numpy()
        return self.agent.act(observation, self.options.std(self.run.step))

    def learn(self) -> list[dict[str, Tensor]]:
        """Learn from a batch if this step is one to learn at; return what there is to log of it."""
        # Before the first episode has ended, the replay buffer is empty
        if self.seeding or self.run.step % self.options.update_every or not len(self.replay):
            return []
        return [self.agent.update(self.replay.sample(self.options.batch), self.options.std(self.run.step))]

    def report(self, episode: Episode, learnt: list[dict[str, Tensor]], seconds: float) -> None:
        """Log an episode of training, and the means of what its updates returned."""
        run, options, length = self.run, self.options, len(episode.actions) * self.options.action_repeat
        figures = {"return": sum(episode.rewards), "length": length, "frames_per_second": length / seconds}
        for name in learnt[0] if learnt else ():
            figures[name] = float(torch.stack([each[name] for each in learnt]).mean())
        run.log("train", {**figures, "std": options.std(run.step), "steps": len(self.replay)})
        typer.echo(f"frame {run.frame}: return {figures['return']:.1f}, {figures['frames_per_second']:.0f} frames/s")

    def evaluate(self) -> None:
        """Evaluate in every setting, on the same episodes each time, and log how it went."""
        run, options = self.run, self.options
        for setting in options.settings():
            with environment(options, self.masking, setting, derived(options.seed, EVALUATION)) as env:
                figures = evaluate(env, self.agent.act, options.eval_episodes, self.stop)
            if figures is None:
                return
            run.report(setting, options.assets(setting), figures)
            spread = f"{figures['mean']:.1f} ± {figures['std']:.1f} of {options.eval_episodes}"
            typer.echo(f"frame {run.frame}: {setting} {spread}")


@contextmanager
def environment(options: Options, masking: Masking, setting: str, seed: int) -> Iterator[Any]:
    """Open an environment whose observations are masked images, (3 * frame_stack, H, W) uint8; close it after use."""
    seen: dict[str, Any] = {"setting": setting, "clips": options.clips, "colors": options.colors, "size": options.size}
    repeat = options.action_repeat
    with closing(envs.make(options.task, action_repeat=repeat, frame_stack=None, seed=seed, **seen)) as plain:
        # Masked before it is stacked, so that every image is masked once
        yield envs.stack(plain if masking is None else MaskedObservation(plain, *masking), options.frame_stack)


def build_encoder(options: Options) -> nn.Module:
    """Build the encoder that was asked for; one of your own goes here."""
    if options.encoder == "pieg":
        return PiegEncoder(options.resnet18, options.frame_stack, options.size)
    if options.size < 15:
        raise InputError(f"size is {options.size}: DrQ-v2's encoder needs images of 15 pixels or more")
    return DrqEncoder(3 * options.frame_stack)


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


def main(options: Options) -> None:
    """Begin a run, or go on with it."""
    # A wrong name is an error at once, not at the first evaluation
    envs.find_task(options.task)
    check_setting(options.setting)
    options.settings()
    device = find_device(options.device)
    # Segmenter and agent take turns, but the threads of each spin for a while after their work, which slows the other
    # down unless there are cores for both
    threads = options.threads or max(1, machine.cores() // 2)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    encoder = build_encoder(options)

    with ExitStack() as stack:
        run = stack.enter_context(open_run(options.run, options.lasting(), resume=options.resume))
        stop = stack.enter_context(graceful_interrupt())
        masking: Masking = None
        if options.mask != "none":
            segmenter = stack.enter_context(samg_fast.load(options.mask, device=options.device, threads=threads))
            typer.echo(segmenter.describe())
            seed = derived(options.seed, REFERENCE)
            masking = segmenter, run.target(lambda: segmenter.identify(*reference(options.task, options.size, seed)))
        # A run that goes on begins in other initial states than it did at first
        seed = derived(options.seed, TRAINING, run.episode)
        env = stack.enter_context(environment(options, masking, options.setting, seed))
        drawing = options.frame_stack, options.nstep, options.discount
        replay = Replay(run.folder / "replay", options.buffer, *drawing, **run.episodes)
        agent = Agent(encoder, env.observation_space.shape, env.action_space.shape[0], options, device)
        run.restore(agent)
        if options.resume:
            typer.echo(f"goes on at frame {run.frame}; of the episode that was running, {run.lost} frames are not kept")
        Trainer(options, run, env, masking, agent, replay, stop).train()
        if stop():
            typer.echo(f"interrupted at frame {run.frame}: go on with --resume", err=True)
            raise typer.Exit(INTERRUPTED)


app = typer.Typer(add_completion=False)


def command(**values: Any) -> None:
    """Train DrQ-v2 on masked observations in one setting, and evaluate it in others."""
    try:
        main(Options(**values))
    except SamgError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("interrupted: what was written before is whole", err=True)
        raise typer.Exit(INTERRUPTED) from None


# The command's options are the fields of the dataclass
command.__signature__ = inspect.signature(Options, eval_str=True)  # type: ignore[attr-defined]
app.command()(command)

if __name__ == "__main__":
    app()
