"""Trains the networks; training can be stopped and resumed at any step.

The result depends only on `Settings`, which every checkpoint contains, and on the pool's folder.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from samg_fast.envs.backgrounds import VideoClip
from samg_fast.files import replacing
from samg_fast.metrics import area_under_curve

from .compose import LESSONS, Lesson, Lessons, Material, collate, stream
from .episode import Outcome, run_episode
from .model import Shape, Tiny
from .optimise import MEAN, STD, MovingAverage, adamw
from .pool import Group

logger = logging.getLogger(__name__)


def _emphasis() -> dict[str, float]:
    """Return higher weights: the paper's domains, most for the smallest target; the hands; objects of any shape."""
    paper = ("walker", "cartpole", "finger", "cheetah", "hopper", "quadruped")
    hands = ("adroit_door", "adroit_hammer", "adroit_pen")
    return {
        "suite/ball_in_cup": 3.5,
        **{f"suite/{domain}": 2.0 for domain in paper},
        **{f"gymnasium_robotics/{name}": 3.0 for name in hands},
        "primitives": 2.0,
    }


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a training run.

    Attributes
    ----------
    steps : int
        Total number of optimiser steps.
    pairs : int
        Pairs of images per step.
    rate, decay : float
        AdamW's peak learning rate and weight decay.
    warmup : int
        Steps over which the learning rate rises.
    cooldown : float
        Share of the steps, at the end, over which it falls; between the two it is constant.
    average : float
        Decay of the moving average of the weights; the average becomes the bundle.
    seed : int
    validation_every : int
        One group in this many is kept for validation.
    emphasis : dict
        Source -> weight of its groups when drawing; 1 if missing.
    lessons : Lessons
        How often a pair is about what.
    shape : Shape
    """

    steps: int = 8000
    pairs: int = 16
    rate: float = 2e-3
    decay: float = 0.02
    warmup: int = 200
    cooldown: float = 0.3
    average: float = 0.998
    seed: int = 0
    validation_every: int = 25
    emphasis: dict[str, float] = field(default_factory=_emphasis)
    lessons: Lessons = field(default_factory=Lessons)
    shape: Shape = field(default_factory=Shape)


class _Pairs(IterableDataset[dict[str, Tensor]]):
    def __init__(self, material: Material, settings: Settings, start: int) -> None:
        self.material, self.settings, self.start = material, settings, start

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        # The seed includes the start step, so that a resumed run draws new pairs instead of repeating the first ones.
        worker = torch.utils.data.get_worker_info()
        settings, seed = self.settings, (self.settings.seed, self.start, worker.id if worker else 0)
        torch.set_num_threads(1)
        batches = stream(self.material, settings.lessons, pairs=settings.pairs, side=settings.shape.side, seed=seed)
        for batch in batches:
            yield to_tensors(batch)


def to_tensors(batch: dict[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    """Convert the arrays of a batch to tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def normalise(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Normalise the uint8 images of a batch to the encoder's input."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    image = ((batch["image"].float() - mean) / std).contiguous(memory_format=torch.channels_last)
    return {**batch, "image": image}


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step: it rises, stays, and falls to a hundredth in the shape of a cosine."""
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    last = settings.cooldown * settings.steps
    done = min(max(step - (settings.steps - last), 0.0) / max(last, 1.0), 1.0)
    return settings.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def held_out(groups: list[Group], clips: list[VideoClip], settings: Settings) -> Material:
    """Return the part of a pool that is used for validation only, with its clips."""
    return Material(groups[:: settings.validation_every], clips)


def validation_batches(
    material: Material, settings: Settings, *, lessons: Sequence[Lesson] = LESSONS, batches: int = 4
) -> dict[Lesson, list[dict[str, Tensor]]]:
    """Draw fixed batches of each lesson, the same ones whenever called."""
    fixed: dict[Lesson, list[dict[str, Tensor]]] = {}
    for lesson in lessons:
        rng = np.random.default_rng([settings.seed, 999])
        composers = material.composers(settings.lessons, rng)
        composer = max(composers.values(), key=lambda each: len(each.groups))
        fixed[lesson] = []
        for _ in range(batches):
            pairs = [composer.pair(lesson) for _ in range(settings.pairs)]
            fixed[lesson].append(normalise(to_tensors(collate(pairs, settings.shape.side))))
    return fixed


@torch.no_grad()
def validate(model: Tiny, fixed: dict[Lesson, list[dict[str, Tensor]]]) -> dict[str, float]:
    """Measure a model on SAM-G's own prompts.

    Returns
    -------
    dict
        For every lesson the mean IoU of the last mask; ``whole1`` and ``whole2`` that of the masks before;
        ``rival``, of whole targets beside a pasted thing, the share of masks that cover more of the target than of
        distractors; ``auc``, the area under the curve of the score of whole targets against that of absent ones.
    """
    was_training = model.training
    model.eval()
    found: dict[Lesson, list[Outcome]] = {}
    nearer = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for lesson, batches in fixed.items():
            for batch in batches:
                with torch.autocast("cpu", torch.bfloat16):
                    outcome = run_episode(model, batch, only_samg=True)
                found.setdefault(lesson, []).append(outcome)
                if lesson == "whole":
                    on, off = (
                        (outcome.mask & batch[name]).sum((1, 2)) / batch[name].sum((1, 2)).clamp(min=1)
                        for name in ("target", "rival")
                    )
                    nearer += [(on > off)[batch["rival"].sum((1, 2)) > 60]]
    model.train(was_training)
    ious = {
        lesson: torch.cat([each.iou[:, each.samg] for each in outcomes], 1).mean(1)
        for lesson, outcomes in found.items()
        if lesson != "absent"
    }
    present, absent = (torch.cat([each.score for each in found[lesson]]) for lesson in ("whole", "absent"))
    result = {str(lesson): float(iou[2]) for lesson, iou in ious.items()}
    result |= {"whole1": float(ious["whole"][0]), "whole2": float(ious["whole"][1])}
    result |= {"rival": float(torch.cat(nearer).float().mean()), "auc": area_under_curve(present, absent)}
    return {name: round(value, 4) for name, value in result.items()}


PRESENT_KEPT = 0.95
"""Share of the validation images that show their target which are to count as showing it."""


@torch.no_grad()
def presence_threshold(model: Tiny, fixed: dict[Lesson, list[dict[str, Tensor]]]) -> float:
    """Return the score that `PRESENT_KEPT` of the whole targets in validation images reach."""
    scores = []
    for batch in fixed["whole"]:
        with torch.autocast("cpu", torch.bfloat16):
            outcome = run_episode(model, batch, only_samg=True)
        scores.append(outcome.score[outcome.present])
    return min(max(float(torch.cat(scores).quantile(1 - PRESENT_KEPT)), 0.0), 1.0)


def settings_from(values: dict[str, Any]) -> Settings:
    """Return the settings that `dataclasses.asdict` turned into ``values``."""
    return Settings(**{**values, "shape": Shape(**values["shape"]), "lessons": Lessons(**values["lessons"])})


def load_checkpoint(path: Path) -> tuple[Tiny, Settings, int]:
    """Return the model of a checkpoint with averaged weights, its settings and its step."""
    saved = torch.load(path, weights_only=True)
    settings = settings_from(saved["settings"])
    model = Tiny(settings.shape)
    model.load_state_dict(saved["average"])
    return model.eval(), settings, int(saved["step"])


def train(
    groups: list[Group],
    clips: list[VideoClip],
    photos: list[VideoClip],
    validation_clips: list[VideoClip],
    out: Path,
    settings: Settings,
    *,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    save_every: int = 250,
) -> Path:
    """Train until ``settings.steps``, resuming if ``out`` has a checkpoint.

    Parameters
    ----------
    groups : list of Group
        The pool; some groups are used for validation only.
    clips, validation_clips : list of VideoClip
        Background clips, besides the procedural ones.
    photos : list of VideoClip
        Photographs, as clips of one image.
    out : path
        Folder for ``checkpoint.pt`` and ``log.jsonl``.
    settings : Settings
    progress : callable, optional
        Called after every step with its number and the smoothed terms of the loss.
    save_every : int
        Steps between checkpoints, each with a validation.

    Returns
    -------
    path
        The checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / "checkpoint.pt", out / "log.jsonl"
    torch.manual_seed(settings.seed)
    model = Tiny(settings.shape)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimiser = adamw(model, rate=settings.rate, decay=settings.decay)
    average, start = MovingAverage(model, settings.average), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.state, start = saved["average"], int(saved["step"])
        average.steps = start
        logger.info("resumed at step %d", start)
    torch.manual_seed(settings.seed + start)

    training = [group for index, group in enumerate(groups) if index % settings.validation_every]
    fixed = validation_batches(held_out(groups, validation_clips, settings), settings)
    material = Material(training, clips, photos, settings.emphasis)
    loader = DataLoader(_Pairs(material, settings, start), batch_size=None, num_workers=1, prefetch_factor=6)

    smooth: dict[str, float] = {}
    began = time.monotonic()
    for step, batch in zip(range(start, settings.steps), loader, strict=False):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        with torch.autocast("cpu", torch.bfloat16):
            outcome = run_episode(model, normalise(batch))
        optimiser.zero_grad(set_to_none=True)
        outcome.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimiser.step()
        average.update(model)
        terms = {**outcome.terms, "iou": float(outcome.iou[2, outcome.samg].mean())}
        smooth = {k: 0.97 * smooth.get(k, v) + 0.03 * v for k, v in terms.items()}
        if progress:
            progress(step + 1, smooth)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            state = {
                "model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.state,
                "step": step + 1, "settings": asdict(settings),
            }  # fmt: skip
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)
            candidate = Tiny(settings.shape)
            candidate.load_state_dict(average.state)
            validation = validate(candidate, fixed)
            seconds = (time.monotonic() - began) / (step + 1 - start)
            line = {
                "step": step + 1,
                **{f"validation/{name}": value for name, value in validation.items()},
                "seconds_per_step": round(seconds, 3),
                **smooth,
            }
            with log.open("a") as file:
                file.write(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
    return checkpoint
