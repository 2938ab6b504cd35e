"""Trains the network of a fitted bundle; training can be stopped and resumed at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samg_fast.checks import Frame, Mask
from samg_fast.envs.backgrounds import VideoClip
from samg_fast.files import replacing

from .compose import Composer
from .labels import Labels
from .network import FittedNet, Shape

__all__ = ["MEAN", "STD", "Settings", "State", "load_state", "normalise", "segment", "train"]

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation on 0..255."""

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
    heavy = [p for p in model.parameters() if p.ndim > 1]
    light = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": settings.decay}, {"params": light, "weight_decay": 0.0}], lr=settings.rate
    )
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    step, steps, seconds = 0, settings.steps, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average, step, steps, seconds = saved["average"], saved["step"], saved["steps"], saved["seconds"]
    began = time.monotonic() - seconds

    def save() -> None:
        state = {
            "model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step,
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
            decay = min(settings.average, step / (step + 10))
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)
            if settings.minutes is not None and step == _MEASURED:
                steps = _affordable(settings, (time.monotonic() - began) / step)
            progress(step, steps, float(loss.detach()))
            if step % save_every == 0 or step == steps or stop():
                save()
            if stop():
                break
    return load_state(path)


def _affordable(settings: Settings, seconds: float) -> int:
    """Return the steps that the minutes allow, at so many seconds a step."""
    assert settings.minutes is not None
    return min(settings.steps, max(2 * _MEASURED, int(settings.minutes * 60 / seconds)))


def _rate(step: int, steps: int, settings: Settings) -> float:
    warm = min((step + 1) / settings.warmup, 1.0)
    return settings.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1))))


def normalise(images: Frame) -> Tensor:
    """Return images (B, S, S, 3) uint8 as the network takes them, (B, 3, S, S)."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    values: Tensor = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / std  # channels last
    return values


def _loss(model: FittedNet, images: Frame, masks: Mask) -> Tensor:
    """Cross-entropy and dice of the masks, and the error of the predicted IoU."""
    wanted = torch.from_numpy(masks).float()[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        logits, score = model(normalise(images))
    logits, score = logits.float(), score.float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted)
    probability = logits.sigmoid()
    overlap = (probability * wanted).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2, 3)) + wanted.sum((1, 2, 3)) + 1)
    with torch.no_grad():
        found = logits > 0
        both = (found & (wanted > 0)).sum((1, 2, 3)).float()
        true = both / (found | (wanted > 0)).sum((1, 2, 3)).clamp(min=1)
    loss: Tensor = 5 * entropy + dice.mean() + F.mse_loss(score[:, 0], true)
    return loss


@torch.no_grad()
def segment(model: FittedNet, images: Frame) -> tuple[Mask, Any]:
    """Return the masks (B, S, S) bool and scores (B,) of images at the network's side."""
    logits, score = model.eval()(normalise(images))
    return (logits[:, 0] > 0).numpy(), score[:, 0].numpy()
