"""Adaptation: which of the first decode's three masks a task should trust (PerSAM-F).

Three weights that sum to 1 are fitted so that the weighted logits agree with the reference mask. The official code
decodes again at each of 1,000 steps. The logits do not depend on the weights, so here they are decoded only once for
each of a few jittered targets, and two numbers are fitted to them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samg_fast.checks import Floats, Mask
from samg_fast.ops.reference import unit
from samg_fast.target import Target

__all__ = ["JITTERS", "fit_mask_weights", "jittered", "mask_loss"]

JITTERS = 8
"""Number of jittered targets, in place of the official code's thousand."""

_NOISE = 0.01  # length of the noise on a unit feature
_ALPHA, _GAMMA = 0.25, 2.0  # focal loss
_STEPS, _RATE, _EPSILON, _DECAY = 1000, 1e-3, 1e-4, 1e-2  # AdamW: the official values, and torch's weight decay
_BETAS = (0.9, 0.999)


def jittered(target: Target, *, seed: int | None, count: int = JITTERS) -> list[Target]:
    """Return copies of a target, with noise on the features of its human points.

    Each such feature gets noise of length 0.01 in a random direction and is normalised again. A target without human
    points is returned itself.

    Parameters
    ----------
    target : Target
    seed : int or None
        Of the noise; None for another one with every call.
    count : int
        Number of copies.

    Returns
    -------
    list of Target
        `count` copies; or the target alone, where it has no human points.
    """
    if not target.part_is_point.any():
        return [target]
    random = np.random.default_rng(seed)
    return [
        replace(
            target,
            parts_sam=_with_noise(target.parts_sam, target.part_is_point, random),
            parts_dino=_with_noise(target.parts_dino, target.part_is_point, random),
        )
        for _ in range(count)
    ]


def fit_mask_weights(logits: Floats, mask: Mask) -> Floats:
    """Fit the weights of three masks to a reference mask.

    1,000 steps of AdamW (learning rate 1e-3 falling to 0 as a cosine, epsilon 1e-4, weight decay 1e-2) on w1 and w2,
    which start at a third; w0 = 1 - w1 - w2. Step i uses the logits of jitter i modulo J.

    Parameters
    ----------
    logits : (J, 3, H, W) float32 array
        The first decode's logits at the frame's size, for each jitter.
    mask : (H, W) bool array
        What the weighted logits should become.

    Returns
    -------
    (3,) float32 array
        The weights; they sum to 1 and may be negative.
    """
    flat = np.ascontiguousarray(logits.reshape(len(logits), 3, -1))
    wanted = mask.ravel()
    free = np.full(2, 1 / 3)
    first, second = np.zeros(2), np.zeros(2)
    for step in range(_STEPS):
        rate = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        _, gradient = mask_loss(free, flat[step % len(flat)], wanted)
        first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
        second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient**2
        mean, variance = first / (1 - _BETAS[0] ** (step + 1)), second / (1 - _BETAS[1] ** (step + 1))
        free = free * (1 - rate * _DECAY) - rate * mean / (np.sqrt(variance) + _EPSILON)
    return np.array([1 - free.sum(), *free], np.float32)


def mask_loss(free: NDArray[np.float64], logits: Floats, wanted: Mask) -> tuple[float, NDArray[np.float64]]:
    """Dice plus focal loss of weighted logits, and its gradient.

    Parameters
    ----------
    free : (2,) float64 array
        w1 and w2.
    logits : (3, n) float array
        Of three masks.
    wanted : (n,) bool array

    Returns
    -------
    loss : float
    gradient : (2,) float64 array
        With respect to `free`.
    """
    weights = np.array([1 - free.sum(), *free]).astype(logits.dtype)
    sign = np.where(wanted, logits.dtype.type(1), logits.dtype.type(-1))
    margin = (weights @ logits) * sign  # how far each pixel is on its right side
    tail = np.exp(-np.abs(margin))
    # sigmoid(margin), the probability of the truth, without overflow
    right = np.where(margin >= 0, 1, tail) / (1 + tail)
    wrong = np.where(margin >= 0, tail, 1) / (1 + tail)
    surprise = np.maximum(-margin, 0) + np.log1p(tail)  # -log(right)

    balance = np.where(wanted, logits.dtype.type(_ALPHA), logits.dtype.type(1 - _ALPHA))
    focal = float(np.mean(balance * wrong**_GAMMA * surprise))
    # d/dmargin of wrong^g * -log(right), with d wrong = -right * wrong
    focal_slope = -balance * wrong**_GAMMA * (_GAMMA * right * surprise + wrong) / len(wanted)

    probability = np.where(wanted, right, wrong)
    above = 2 * float(probability[wanted].sum(dtype=np.float64)) + 1
    below = float(probability.sum(dtype=np.float64)) + float(wanted.sum()) + 1
    dice = 1 - above / below
    # d/dlogit; a wanted pixel moves numerator and denominator, any other the denominator alone
    dice_slope = right * wrong * (above / below**2 - np.where(wanted, 2 / below, 0))

    by_weight = logits @ (focal_slope * sign + dice_slope).astype(logits.dtype)
    return dice + focal, np.asarray(by_weight[1:] - by_weight[0], np.float64)


def _with_noise(features: Floats, chosen: Mask, random: np.random.Generator) -> Floats:
    noise = unit(random.standard_normal(features.shape).astype(np.float32), axis=1) * np.float32(_NOISE)
    return np.where(chosen[:, None], unit(features + noise, axis=1), features)
