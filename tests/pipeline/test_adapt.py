"""Adaptation: the loss and its gradient, the fit, the jitter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from samg_fast import Segmenter
from samg_fast.pipeline.adapt import JITTERS, fit_mask_weights, jittered, mask_loss
from samg_fast.pipeline.networks import Networks
from samg_fast.pipeline.stopwatch import Stopwatch
from support.synthetic_bundle import picture


def logits_and_mask(seed: int, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mask = random.random(600) < 0.3
    truth = np.where(mask, 1.0, -1.0)
    rows = [truth * 0.2, truth, -truth * 0.5]
    return np.stack([row * scale + random.standard_normal(600) for row in rows]), mask


def slow_loss(free: np.ndarray, logits: np.ndarray, mask: np.ndarray) -> float:
    """Dice and focal loss as PerSAM-F writes them."""
    x = np.array([1 - free.sum(), *free]) @ logits
    p = 1 / (1 + np.exp(-x))
    y = mask.astype(float)
    dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    right = p * y + (1 - p) * (1 - y)
    return float(dice + ((0.25 * y + 0.75 * (1 - y)) * (1 - right) ** 2 * entropy).mean())


@pytest.mark.parametrize("free", [(1 / 3, 1 / 3), (0.9, -0.4), (0.0, 0.0), (2.0, -3.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient(free: tuple[float, float], seed: int) -> None:
    logits, mask = logits_and_mask(seed)
    at = np.array(free)
    loss, gradient = mask_loss(at, logits, mask)
    assert loss == pytest.approx(slow_loss(at, logits, mask), rel=1e-9)
    for index in range(2):
        step = np.eye(2)[index] * 1e-5
        numeric = (slow_loss(at + step, logits, mask) - slow_loss(at - step, logits, mask)) / 2e-5
        assert gradient[index] == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_huge_logits_do_not_overflow() -> None:
    logits, mask = logits_and_mask(0, scale=1e4)
    with np.errstate(all="raise", under="ignore"):
        loss, gradient = mask_loss(np.array([0.0, 1.0]), logits.astype(np.float32), mask)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_fit_improves_and_finds_the_good_mask() -> None:
    logits, mask = logits_and_mask(2)
    weights = fit_mask_weights(logits.astype(np.float32).reshape(1, 3, 20, 30), mask.reshape(20, 30))
    assert weights.dtype == np.float32
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert weights.argmax() == 1
    assert slow_loss(weights[1:], logits, mask) < slow_loss(np.full(2, 1 / 3), logits, mask)


def test_fit_as_torch_would() -> None:
    """The fit is AdamW with a cosine schedule, step by step."""
    torch = pytest.importorskip("torch")
    logits, mask = logits_and_mask(3)
    free = torch.full((2,), 1 / 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.AdamW([free], lr=1e-3, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)
    x, y = torch.from_numpy(logits), torch.from_numpy(mask.astype(np.float64))
    for _ in range(1000):
        mixed = torch.cat([1 - free.sum()[None], free]) @ x
        p = mixed.sigmoid()
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(mixed, y, reduction="none")
        right = p * y + (1 - p) * (1 - y)
        loss = dice + ((0.25 * y + 0.75 * (1 - y)) * (1 - right) ** 2 * entropy).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    got = fit_mask_weights(logits.astype(np.float32).reshape(1, 3, 20, 30), mask.reshape(20, 30))
    np.testing.assert_allclose(got[1:], free.detach().numpy(), atol=1e-4)


def test_jitter(one_segmenter: Segmenter) -> None:
    frame, mask = picture(84, 84)
    target = one_segmenter.identify(frame, mask, points=[(40, 40)], parts=[mask])
    copies = jittered(target, seed=3)
    assert len(copies) == JITTERS
    for copy in copies:
        assert (copy.sam == target.sam).all()
        assert (copy.parts_sam[0] == target.parts_sam[0]).all()  # a part from a mask stays
        for ours, theirs in ((copy.parts_sam[1], target.parts_sam[1]), (copy.parts_dino[1], target.parts_dino[1])):
            assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)
            assert 0 < np.linalg.norm(ours - theirs) < 0.011
    assert (jittered(target, seed=3)[0].parts_sam == copies[0].parts_sam).all()
    assert (jittered(target, seed=4)[0].parts_sam != copies[0].parts_sam).any()
    assert (copies[0].parts_sam[1] != copies[1].parts_sam[1]).any()
    assert jittered(one_segmenter.identify(frame, mask), seed=0)[0].parts == 0


@pytest.mark.parametrize("points", [(), ((40, 40),)])
def test_adapt(segmenter: Segmenter, points: tuple[tuple[int, int], ...]) -> None:
    frame, mask = picture(84, 84)
    target = segmenter.identify(frame, mask, points=points)
    adapted = segmenter.adapt(target, frame, mask, seed=1)
    assert adapted.mask_weights.sum() == pytest.approx(1, abs=1e-5)
    assert (adapted.mask_weights != target.mask_weights).any()
    assert replace(adapted, mask_weights=target.mask_weights).sam.tolist() == target.sam.tolist()
    assert (segmenter.adapt(target, frame, mask, seed=1).mask_weights == adapted.mask_weights).all()

    def loss(weights: np.ndarray) -> float:
        trace = segmenter.segment(frame, replace(target, mask_weights=weights), trace=True).trace
        assert trace is not None
        networks: Networks = segmenter._networks
        logits = networks.to_frame(trace.decodes[0].low_res, (84, 84)).reshape(3, -1)
        return mask_loss(weights[1:].astype(np.float64), logits, mask.ravel())[0]

    assert loss(adapted.mask_weights) < loss(target.mask_weights)
    assert Stopwatch().milliseconds(1)["total"] >= 0
