"""Trains the network of a fitted bundle; training can be stopped and resumed at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samg_fast.checks import Frame, Mask
from samg_fast.distill.losses import mask_loss, true_iou
from samg_fast.distill.optimise import MEAN, STD, MovingAverage, adamw
from samg_fast.envs.backgrounds import VideoClip
from samg_fast.files import replacing

from .compose import Composer
from .labels import Labels
from .network import FittedNet, Shape

__all__ = ["Settings", "State", "load_state", "train"]

_MEASURED = 30  # steps, from which the speed is known


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a fit.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    minutes : float or None
        Fewer steps, if so many take longer than this.
    batch : int
        Images a step.
    rate, decay : float
        AdamW's peak learning rate and weight decay.
    warmup : int
        Steps over which the learning rate rises; from then on it falls as a cosine.
    average : float
        Decay of the moving average of the weights; the average becomes the bundle.
    seed : int
    shape : Shape
    """

    steps: int = 3000
    minutes: float | None = None
    batch: int = 24
    rate: float = 4e-3
    decay: float = 0.01
    warmup: int = 100
    average: float = 0.995
    seed: int = 0
    shape: Shape = field(default_factory=Shape)


@dataclass
class State:
    """Where a training stands.

    Attributes
    ----------
    model : FittedNet
        With averaged weights.
    step, steps : int
        Steps done, of so many.
    seconds : float
        That they took.
    """

    model: FittedNet
    step: int
    steps: int
    seconds: float


def load_state(path: Path) -> State:
    """Read what `train` saved."""
    saved = torch.load(path, weights_only=True)
    model = FittedNet(Shape(**saved["settings"]["shape"]))
    model.load_state_dict(saved["average"])
    return State(model.eval(), saved["step"], saved["steps"], saved["seconds"])


def train(
    labels: Labels,
    clips: Sequence[VideoClip],
    path: Path,
    settings: Settings,
    *,
    weights: FittedNet | None = None,
    progress: Callable[[int, int, float], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
    save_every: int = 200,
) -> State:
    """Train until the last step, resuming if ``path`` has a checkpoint.

    Parameters
    ----------
    labels : Labels
        At the side of the network.
    clips : sequence of VideoClip
        Backgrounds.
    path : path
        The checkpoint.
    settings : Settings
    weights : FittedNet, optional
        Where to start from, instead of random weights.
    progress : callable
        Called after every step with its number, that of the last one and the loss.
    stop : callable
        Asked after every step; True saves a checkpoint and returns.
    save_every : int
        Steps between checkpoints.
    """
    torch.manual_seed(settings.seed)
    model = FittedNet(settings.shape)
    if weights is not None:
        model.load_state_dict(weights.state_dict())
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stubs lack it
    optimiser = adamw(model, rate=settings.rate, decay=settings.decay)
    average = MovingAverage(model, settings.average)
    step, steps, seconds = 0, settings.steps, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        step, steps, seconds = saved["step"], saved["steps"], saved["seconds"]
        average.state, average.steps = saved["average"], step
    began = time.monotonic() - seconds

    def save() -> None:
        state = {
            "model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.state, "step": step,
            "steps": steps, "seconds": time.monotonic() - began, "settings": asdict(settings),
        }  # fmt: skip
        with replacing(path) as temporary:
            torch.save(state, temporary)

    # The seed includes the step, so that a resumed run draws new images
    composer = Composer(labels, clips, settings.shape.side, np.random.default_rng([settings.seed, step]))
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(composer.batch, settings.batch)
        while step < steps:
            images, masks = coming.result()
            coming = pool.submit(composer.batch, settings.batch)
            for group in optimiser.param_groups:
                group["lr"] = _rate(step, steps, settings)
            loss = _loss(model, images, masks)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
            optimiser.step()
            step += 1
            average.update(model)
            if settings.minutes is not None and step == _MEASURED:
                steps = _affordable(settings, (time.monotonic() - began) / step)
            progress(step, steps, float(loss.detach()))
            ended = step == steps or stop()
            if ended or step % save_every == 0:
                save()
            if ended:
                break
    return load_state(path)


def _affordable(settings: Settings, seconds: float) -> int:
    """Return the steps that the minutes allow, at so many seconds a step."""
    assert settings.minutes is not None
    return min(settings.steps, max(2 * _MEASURED, int(settings.minutes * 60 / seconds)))


def _rate(step: int, steps: int, settings: Settings) -> float:
    warm = min((step + 1) / settings.warmup, 1.0)
    return settings.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1))))


def _normalise(images: Frame) -> Tensor:
    """Return images (B, S, S, 3) uint8 as the network takes them, (B, 3, S, S)."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    values: Tensor = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / std  # channels last
    return values


def _loss(model: FittedNet, images: Frame, masks: Mask) -> Tensor:
    """Cross-entropy and dice of the masks, and the error of the predicted IoU."""
    wanted = torch.from_numpy(masks).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits, score = model(_normalise(images))
    logits, score = logits.float(), score.float()
    masks_alike: Tensor = mask_loss(logits, wanted).mean()
    return masks_alike + F.mse_loss(score, true_iou(logits.detach(), wanted))
