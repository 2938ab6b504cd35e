"""The losses: masks (cross-entropy and dice), predicted IoU, and correspondence of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return cross-entropy plus dice loss per mask.

    Parameters
    ----------
    logits : (B, M, F, F)
    target : (B, F, F) float in 0..1

    Returns
    -------
    (B, M)
    """
    wanted = target[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap = (probability * wanted).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    return 5 * entropy + dice


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of the thresholded masks with the target, (B, M); 0 where there is no target."""
    mask, wanted = logits > 0, target[:, None] > 0.5
    both = (mask & wanted).sum((2, 3)).float()
    return both / (mask | wanted).sum((2, 3)).clamp(min=1)


def decode_loss(logits: Tensor, iou: Tensor, target: Tensor, *, weighted: bool) -> Tensor:
    """Return the loss of one decode, by how SAM-G uses its result.

    Parameters
    ----------
    logits : (B, 4, F, F)
    iou : (B, 4)
    target : (B, F, F) float
    weighted : bool
        True for the first decode, whose three masks are averaged; False for the others, which keep the mask with the
        best predicted IoU.
    """
    every = mask_loss(logits, target)
    three = every[:, 1:]
    if weighted:
        used = mask_loss(logits[:, 1:].mean(1, keepdim=True), target)[:, 0]
    else:
        used = three.gather(1, iou[:, 1:].argmax(1, keepdim=True))[:, 0]
    quality = F.mse_loss(iou, true_iou(logits.detach(), target))
    return (used + 0.5 * three.min(1).values + 0.25 * every[:, 0]).mean() + 2 * quality


def point_loss(similarity: Tensor, inside: Tensor, rival: Tensor, temperature: float = 0.05) -> Tensor:
    """Return a loss that puts the best cell inside the target and the worst outside, on a distractor if there is one.

    The worst cell becomes SAM-G's negative point, which is most useful on a distractor.

    Parameters
    ----------
    similarity : (B, G, G)
        Cosine similarity to the target's feature, −1..1.
    inside : (B, G, G)
        Fraction of each cell that the target covers.
    rival : (B, G, G)
        Fraction of each cell that distractors cover.
    """
    flat, cover = similarity.flatten(1) / temperature, inside.flatten(1)
    surely = torch.where(cover >= cover.amax(1, keepdim=True).clamp(max=0.6), 0.0, -1e4)
    outside = cover <= cover.amin(1, keepdim=True)
    on_rival = outside & (rival.flatten(1) > 0.5)
    wanted = torch.where(on_rival.any(1, keepdim=True), on_rival, outside)
    nowhere = torch.where(wanted, 0.0, -1e4)
    positive = torch.logsumexp(flat, 1) - torch.logsumexp(flat + surely, 1)
    positive = positive * (cover.amax(1) > 0)
    negative = torch.logsumexp(-flat, 1) - torch.logsumexp(-flat + nowhere, 1)
    # Not only the extremes matter: parts are found in these maps, and people look at them.
    margin = F.binary_cross_entropy_with_logits((similarity.flatten(1) - 0.5) * 10, cover)
    return (positive + negative).mean() + margin


def contrast_loss(
    targets: Tensor, features: Tensor, scene: Tensor, present: Tensor, temperature: float = 0.05
) -> Tensor:
    """Return a loss that makes an image's own target the one that is most similar to some cell of it.

    Parameters
    ----------
    targets : (B, C)
        The feature of each image's target, L2-normalised.
    features : (B, C, G, G)
        L2-normalised.
    scene : (B,)
        What is shown where an image's target comes from; targets of the image's own scene are no rivals.
    present : (B,) bool
        Whether an image shows its target.
    """
    peak = torch.einsum("ic,jcn->jin", targets, features.flatten(2)).amax(2) / temperature  # (image, target)
    own = torch.eye(len(targets), dtype=torch.bool)
    same = (scene[:, None] == scene[None]) & ~own
    loss = torch.logsumexp(peak.masked_fill(same, -1e4), 1) - peak.diagonal()
    return (loss * present).sum() / present.sum().clamp(min=1)


def part_loss(first: Tensor, second: Tensor, body: Tensor, temperature: float = 0.07, samples: int = 48) -> Tensor:
    """Return a loss that matches cells of one image to cells of the other that show the same body.

    Parameters
    ----------
    first, second : (B, C, G, G)
        L2-normalised features of reference and query.
    body : (2, B, G, G)
        Body at the centre of each cell, 0 for none.
    """
    a, b = first.flatten(2).transpose(1, 2), second.flatten(2).transpose(1, 2)
    of_a, of_b = body[0].flatten(1), body[1].flatten(1)
    chance = (of_a > 0).float() * torch.rand_like(of_a, dtype=torch.float) + 0.02 * torch.rand_like(
        of_a, dtype=torch.float
    )
    chosen = chance.topk(samples, 1).indices
    queries = a.gather(1, chosen[..., None].expand(-1, -1, a.shape[2]))
    logits = queries @ b.transpose(1, 2) / temperature
    same = of_a.gather(1, chosen)[..., None] == of_b[:, None]
    loss = torch.logsumexp(logits, 2) - torch.logsumexp(logits.masked_fill(~same, -1e4), 2)
    counted = same.any(2) & (of_a.gather(1, chosen) > 0)
    return (loss * counted).sum() / counted.sum().clamp(min=1)
