"""PerSAM-F's adaptation as the official code does it: 1,000 steps of AdamW, each with a decode of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samg_fast.checks import Floats, Mask

__all__ = ["STEPS", "dice_loss", "fit", "focal_loss", "jitter", "mask_weights"]

STEPS = 1000
"""Steps of the official procedure."""

_RATE, _EPSILON = 1e-3, 1e-4
_ALPHA, _GAMMA = 0.25, 2.0
_NOISE = 0.01


def dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the dice loss of (1, n) logits against a (1, n) mask of zeros and ones."""
    probability = logits.sigmoid()
    above = 2 * (probability * wanted).sum(-1)
    below = probability.sum(-1) + wanted.sum(-1)
    loss: Tensor = (1 - (above + 1) / (below + 1)).sum()
    return loss


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the focal loss (alpha 0.25, gamma 2) of (1, n) logits against a (1, n) mask of zeros and ones."""
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    right = probability * wanted + (1 - probability) * (1 - wanted)
    balance = _ALPHA * wanted + (1 - _ALPHA) * (1 - wanted)
    return (balance * entropy * (1 - right) ** _GAMMA).mean(1).sum()


def mask_weights(free: Tensor) -> Tensor:
    """Return all three weights (3, 1), which sum to 1, of the two free ones (2, 1)."""
    return torch.cat((1 - free.sum(0).unsqueeze(0), free), dim=0)


def jitter(feature: Tensor, random: torch.Generator) -> Tensor:
    """Add noise of length 0.01 to a (1, C) feature and normalise it again."""
    noise = torch.randn(feature.shape, generator=random)
    noisy = feature + (noise / noise.norm(dim=-1, keepdim=True) * _NOISE).to(feature.device)
    unit: Tensor = noisy / noisy.norm(dim=-1, keepdim=True)
    return unit


def fit(decode: Callable[[int], Tensor], mask: Mask, *, steps: int = STEPS) -> Floats:
    """Learn the weights of the first decode's three masks.

    AdamW with learning rate 1e-3 falling to 0 as a cosine, epsilon 1e-4 and torch's other defaults, on dice plus focal
    loss of the weighted logits; w1 and w2 start at a third.

    Parameters
    ----------
    decode : callable
        Gives the logits (3, H, W) float32 of step i; called at every step.
    mask : (H, W) bool array
        What the weighted logits should become.
    steps : int
        How many; the schedule ends with the last.

    Returns
    -------
    (3,) float32 array
        They sum to 1 and may be negative.
    """
    wanted = torch.from_numpy(np.ascontiguousarray(mask)).float().unsqueeze(0).flatten(1)
    free = torch.nn.Parameter(torch.ones(2, 1) / 3)
    optimiser = torch.optim.AdamW([free], lr=_RATE, eps=_EPSILON)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        logits = decode(step).flatten(1).clone()
        weighted = (logits * mask_weights(free)).sum(0).unsqueeze(0)
        loss = dice_loss(weighted, wanted) + focal_loss(weighted, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    learned: Floats = mask_weights(free).detach().flatten().numpy()
    return learned
