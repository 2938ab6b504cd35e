"""The SAM-G frame in training: in batches, with gradients through every decode.

The steps are those of the runtime (`samg_fast.pipeline.host`). Other prompts are mixed in, as in the training of
Segment Anything: points and boxes drawn from the ground truth, then corrective clicks. So the decoder learns prompts in
general, not only the sequence that SAM-G uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import contrast_loss, decode_loss, part_loss, point_loss, true_iou
from .model import BOX_END, BOX_START, EMPTY_SLOT, NEGATIVE, PADDING, POSITIVE, Tiny


class Prompts:
    """Prompt slots of a batch: points accumulate, the box is replaced; all in pixels of the frame."""

    def __init__(self, batch: int, slots: int) -> None:
        self.coords = torch.zeros(batch, slots, 2)
        self.labels = torch.full((batch, slots), float(EMPTY_SLOT))
        self.used = torch.zeros(batch, dtype=torch.long)
        self.box = torch.zeros(batch, 4)
        self.has_box = torch.zeros(batch, dtype=torch.bool)

    def add(self, where: Tensor, label: Tensor | int, chosen: Tensor | None = None) -> None:
        """Add point ``where`` (B, 2) with its label to the images ``chosen`` (B,) bool, by default to all."""
        rows = torch.arange(len(self.used)) if chosen is None else chosen.nonzero()[:, 0]
        at = self.used[rows]
        self.coords[rows, at] = where[rows].float()
        self.labels[rows, at] = label[rows].float() if isinstance(label, Tensor) else float(label)
        self.used[rows] += 1

    def set_box(self, box: Tensor, chosen: Tensor) -> None:
        """Set ``box`` (B, 4) for the images ``chosen``."""
        self.box[chosen] = box[chosen].float()
        self.has_box |= chosen

    def slots(self, scale: float) -> tuple[Tensor, Tensor]:
        """Return coordinates in the prompt frame (B, N, 2) and labels (B, N), box or "not a point" included."""
        coords, labels, rows = self.coords.clone(), self.labels.clone(), torch.arange(len(self.used))
        coords[rows, self.used] = torch.where(self.has_box[:, None], self.box[:, :2], 0.0)
        labels[rows, self.used] = torch.where(self.has_box, float(BOX_START), float(PADDING))
        coords[rows, self.used + 1] = torch.where(self.has_box[:, None], self.box[:, 2:], 0.0)
        labels[rows, self.used + 1] = torch.where(self.has_box, float(BOX_END), float(EMPTY_SLOT))
        return coords * scale, labels


def _point(flat: Tensor, width: int) -> Tensor:
    """Convert flat indices to points (x, y)."""
    return torch.stack([flat % width, flat // width], -1)


def _draw(weights: Tensor) -> Tensor:
    """Draw a pixel (x, y) of each (B, F, F) map among those above 0, or among all if there are none."""
    flat = (weights > 0).flatten(1).float() + 1e-3
    return _point((torch.rand_like(flat) * flat).argmax(1), weights.shape[2])


def _argmin(similarity: Tensor, allowed: Tensor | None = None) -> Tensor:
    values = similarity if allowed is None else similarity.masked_fill(~allowed, torch.inf)
    values = values if allowed is not None else values[:, :-1, :-1]
    return _point(values.flatten(1).argmin(1), values.shape[2])


def boxes_of(mask: Tensor) -> Tensor:
    """Return bounding boxes (B, 4) of masks (B, F, F) bool; the official fallback (1, 1, W−1, H−1) if one is empty."""
    height, width = mask.shape[1:]
    columns, rows = mask.any(1), mask.any(2)
    x0, y0 = columns.float().argmax(1), rows.float().argmax(1)
    x1, y1 = width - 1 - columns.flip(1).float().argmax(1), height - 1 - rows.flip(1).float().argmax(1)
    fallback = torch.tensor([1, 1, width - 1, height - 1])
    return torch.where(mask.any((1, 2))[:, None], torch.stack([x0, y0, x1, y1], 1), fallback)


def _inside(box: Tensor, side: int) -> Tensor:
    at = torch.arange(side)
    x = (at >= box[:, 0:1]) & (at < box[:, 2:3])
    y = (at >= box[:, 1:2]) & (at < box[:, 3:4])
    return y[:, :, None] & x[:, None, :]


def target_feature(features: Tensor, inside: Tensor) -> Tensor:
    """Return each target's point feature (B, C): (max + mean)/2 over cells ``inside`` (B, G, G) bool, L2-normalised."""
    chosen = inside[:, None]
    mean = (features * chosen).sum((2, 3)) / chosen.sum((2, 3)).clamp(min=1)
    largest = features.masked_fill(~chosen, -1e4).amax((2, 3))
    return F.normalize((mean + largest) / 2, dim=1)


@dataclass
class Outcome:
    """What came of a batch.

    Attributes
    ----------
    loss : scalar Tensor
    terms : dict of str to float
        The terms of the loss.
    iou : (3, B) Tensor
        IoU of the mask that each decode uses.
    samg : (B,) bool Tensor
        Whether an image shows its target and was prompted as in SAM-G.
    present : (B,) bool Tensor
        Whether an image shows its target.
    score : (B,) Tensor
        Predicted IoU of the last mask.
    mask : (B, F, F) bool Tensor
        The last mask.
    """

    loss: Tensor
    terms: dict[str, float]
    iou: Tensor
    samg: Tensor
    present: Tensor
    score: Tensor
    mask: Tensor


def to_frame(maps: Tensor, side: int, frame: int) -> Tensor:
    """Resize (B, M, 4G, 4G) to the prompt frame, then to (B, M, F, F), bilinearly."""
    if maps.shape[-1] != side:
        maps = F.interpolate(maps, size=(side, side), mode="bilinear")
    return F.interpolate(maps, size=(frame, frame), mode="bilinear") if frame != side else maps


def similarities(embedding: Tensor, features: Tensor, shown: Tensor) -> tuple[list[Tensor], Tensor]:
    """Find each image's target in the other image of its pair.

    Parameters
    ----------
    embedding, features : (B, C, G, G)
        References first, then queries; each image of a pair is the reference of the other.
    shown : (B, F, F) float
        What the target is, where an image is the reference.

    Returns
    -------
    targets : pair of (B, C)
        The features in the embedding and in the features of what each image's partner shows.
    similarity : (B, G, G)
        Cosine similarity with the image's cells, the mean of that in either map.
    """
    grid, count = embedding.shape[-1], len(embedding)
    cover = F.interpolate(shown[:, None], size=(grid, grid), mode="area")[:, 0]
    inside = F.interpolate(shown[:, None], size=(grid, grid), mode="bilinear")[:, 0] > 0
    inside = torch.where(inside.any(1).any(1)[:, None, None], inside, cover > 0)
    targets = [target_feature(maps, inside).roll(count // 2, 0) for maps in (embedding, features)]
    similarity = torch.zeros(count, grid, grid)
    for target, maps in zip(targets, (embedding, features), strict=True):
        similarity = similarity + 0.5 * torch.einsum("bc,bchw->bhw", target, F.normalize(maps, dim=1))
    return targets, similarity


def run_episode(model: Tiny, batch: dict[str, Tensor], *, only_samg: bool = False) -> Outcome:
    """Encode a batch of pairs, prompt and decode three times, and sum the losses.

    Parameters
    ----------
    model : Tiny
    batch : dict of Tensor
        From `samg_fast.distill.compose.collate`, with ``image`` normalised to float. References first, then queries;
        each image of a pair is the reference of the other.
    only_samg : bool
        Use SAM-G's own prompts for every image, as for validation.
    """
    image, target = batch["image"], batch["target"].float()
    count, frame, side, grid = len(image), target.shape[1], model.shape.side, model.shape.grid
    embedding, features = model.encoder(image)
    embedding32, features32 = embedding.float(), features.float()
    moving = batch["moving"].float()
    seen = F.binary_cross_entropy_with_logits(to_frame(model.objectness(embedding).float(), side, frame)[:, 0], moving)

    (feature, other_feature), similarity = similarities(embedding32, features32, batch["shown"].float())
    cover = F.interpolate(target[:, None], size=(grid, grid), mode="area")[:, 0]
    rival = F.interpolate(batch["rival"].float()[:, None], size=(grid, grid), mode="area")[:, 0]
    points = point_loss(similarity, cover, rival)
    middle = ((torch.arange(grid) + 0.5) * frame / grid).long()
    body = batch["body"][:, middle][:, :, middle].reshape(2, count // 2, grid, grid)
    first, second = F.normalize(features32, dim=1).chunk(2)
    parts = part_loss(first, second, body)
    present = (target > 0.5).flatten(1).any(1)
    scene = batch["scene"].roll(count // 2, 0)
    contrast = contrast_loss(other_feature, F.normalize(features32, dim=1), scene, present)

    with torch.no_grad():
        shown = F.interpolate(similarity[:, None], scale_factor=4.0, mode="bilinear")
        shown = to_frame(shown, side, frame)[:, 0]
        # Nobody clicks on what is not there
        mode = torch.where(present, torch.zeros(count) if only_samg else torch.rand(count), 0.0)
        samg, clicks, boxed = mode < 0.66, (mode >= 0.66) & (mode < 0.9), mode >= 0.9
        partial = (target != moving).flatten(1).any(1)
        prompts = Prompts(count, model.shape.slots)
        positive = torch.where(samg[:, None], _point(shown.flatten(1).argmax(1), frame), _draw(target))
        prompts.add(positive, POSITIVE, samg | clicks)
        prompts.add(
            torch.where(samg[:, None], _argmin(shown), _draw(1 - target)),
            NEGATIVE,
            samg | (clicks & (torch.rand(count) < 0.7)),
        )
        if not only_samg:
            for _ in range(3):
                more = present & ~boxed & (torch.rand(count) < torch.where(samg, 0.08, 0.3))
                prompts.add(_draw(target), POSITIVE, more)
            for _ in range(2):
                on_rival = (torch.rand(count) < 0.7) & batch["rival"].any((1, 2))
                rest = torch.where(on_rival[:, None, None], batch["rival"].float(), 1 - target)
                prompts.add(
                    _draw(rest),
                    NEGATIVE,
                    clicks & (torch.rand(count) < 0.4) | (partial & samg & (torch.rand(count) < 0.1)),
                )
            shift = torch.randn(count, 4) * 0.03 * frame
            prompts.set_box((boxes_of(target > 0.5) + shift).clamp(0, frame - 1), boxed)
        known = samg | (torch.rand(count) < 0.4)
    feature = feature * known[:, None]  # clicks and boxes mostly come without a target

    mask_input, has = torch.zeros(count, 1, 4 * grid, 4 * grid), torch.zeros(count)
    total, used_iou, score = torch.zeros(()), [], torch.zeros(count)
    for step in range(3):
        coords, labels = prompts.slots(side / frame)
        low_res, iou = model.decoder(embedding, coords, labels, mask_input, has, feature)
        low_res, iou = low_res.float(), iou.float()
        logits = to_frame(low_res, side, frame)
        total = total + decode_loss(logits, iou, target, weighted=step == 0)
        with torch.no_grad():
            if step == 0:
                used = low_res[:, 1:].mean(1, keepdim=True)
            else:
                best = 1 + iou[:, 1:].argmax(1)
                used = low_res[torch.arange(count), best][:, None]
                score = iou[torch.arange(count), best]
            at_frame = to_frame(used, side, frame)[:, 0]
            used_iou.append(true_iou(at_frame[:, None], target)[:, 0])
            mask = at_frame > 0
            box = boxes_of(mask)
            if step == 0:
                allowed = _inside(box, frame)
                negative = torch.where(allowed.flatten(1).any(1)[:, None], _argmin(shown, allowed), 0)
            else:
                negative = _argmin(shown)
            wrong = mask != (target > 0.5)
            click = _draw(wrong)
            label = target[torch.arange(count), click[:, 1], click[:, 0]] > 0.5
            prompts.add(torch.where(samg[:, None], negative, click), torch.where(samg, float(NEGATIVE), label.float()))
            prompts.set_box(box, samg)
            mask_input, has = used, torch.ones(count)
    loss = total + 2 * seen + 0.5 * points + 0.2 * parts + 0.3 * contrast
    terms = {"decode": total.item() / 3, "seen": seen.item(), "points": points.item(), "parts": parts.item()}
    terms["contrast"] = contrast.item()
    return Outcome(loss, terms, torch.stack(used_iou), samg & present, present, score, mask)
