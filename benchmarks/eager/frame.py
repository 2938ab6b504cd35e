"""The official SAM-G frame in PyTorch eager mode: what everything else is compared with (arXiv 2312.17116).

Frame code of its own, operation by operation what the official one does and in its order: a whole similarity map at the
prompt frame's size for each feature in each of the two maps, a look at the host for each point, three decodes whose
masks are all made large and small again. The networks are those of `samg_fast.export` as they are published, in float32
and not fused. `benchmarks.eager.predictor` names the two things that are cheaper here than officially.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.eager.adapt import STEPS, fit, jitter
from benchmarks.eager.predictor import DinoFeatures, EagerPrompt, Prediction, SamPredictor, check_square
from benchmarks.eager.weights import filled
from samg_fast.checks import Frame, Mask
from samg_fast.export.dinov2 import DinoV2
from samg_fast.export.sam import GRID, EfficientViTSam
from samg_fast.pipeline.stopwatch import Stopwatch

__all__ = ["EagerFrame", "EagerSamg", "EagerTarget", "best", "box_of", "max_point", "min_point"]

_Points = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EagerTarget:
    """What is cut out: L2-normalised point features.

    Parameters
    ----------
    sam, dino : (1, C) float32 tensors
        Of the target, in either map.
    parts_sam, parts_dino : lists of (1, C) float32 tensors
        Of its parts: those of masks first, then human points.
    points : int
        How many of the parts are human points.
    weights : (3, 1) float32 tensor
        Of the first decode's masks.
    """

    sam: Tensor
    dino: Tensor
    parts_sam: list[Tensor]
    parts_dino: list[Tensor]
    points: int
    weights: Tensor


@dataclass(frozen=True, eq=False)
class EagerFrame:
    """The result of a frame, and what every step saw.

    Parameters
    ----------
    mask : (H, W) bool array
    masked : (3, H, W) uint8 array
        Masked observation.
    similarity : list of (H, W) float32 tensors
        The target's map, then one per part.
    prompts : list of 3 EagerPrompt
        What each decode was asked.
    decodes : list of 3 Prediction
        What it gave.
    embedding : (1, 256, 64, 64) float32 tensor
    tokens : (1, C, 32, 32) float32 tensor
    timings : dict of str to float
        Milliseconds of each of `samg_fast.pipeline.stopwatch.STAGES` and the ``"total"``.
    """

    mask: Mask
    masked: NDArray[np.uint8]
    similarity: list[Tensor]
    prompts: list[EagerPrompt]
    decodes: list[Prediction]
    embedding: Tensor
    tokens: Tensor
    timings: dict[str, float]


class EagerSamg:
    """The official frame on reproducible weights, or on any models given.

    Parameters
    ----------
    sam : str or EfficientViTSam
        A key of `samg_fast.export.efficientvit.ENCODERS`, or a model with its weights.
    dino : str or DinoV2
        A key of `samg_fast.export.dinov2.FEATURES`, or a model with its weights.
    compiled : bool
        Whether `torch.compile` makes the networks faster; they are compiled at the first frames.
    device : torch.device or str
        Where the models run, and are moved to. Frames come from the host, and masks go back there.
    """

    def __init__(
        self,
        sam: str | EfficientViTSam,
        dino: str | DinoV2,
        *,
        compiled: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.sam = (filled(EfficientViTSam(sam)) if isinstance(sam, str) else sam).eval().to(self.device)
        self.dino = (filled(DinoV2(dino)) if isinstance(dino, str) else dino).eval().to(self.device)
        self.predictor = SamPredictor(self.sam, compiled=compiled, device=self.device)
        self.features = DinoFeatures(self.dino, compiled=compiled, device=self.device)

    @torch.no_grad()
    def identify(
        self,
        image: Frame,
        masked_picture: Frame,
        points: Sequence[Sequence[float]] | NDArray[np.float64] = (),
        part_pictures: Sequence[Frame] = (),
    ) -> EagerTarget:
        """Learn what to cut out, as the official code does.

        Parameters
        ----------
        image : (H, H, 3) uint8 array
        masked_picture : (H, H, 3) uint8 array
            The same image, black outside the target. Where its red is above SAM's mean red, it is the target.
        points : sequence of (x, y)
            Human points, in pixels.
        part_pictures : sequence of (H, H, 3) uint8 arrays
            Masked pictures of parts.

        Returns
        -------
        EagerTarget

        Raises
        ------
        InputError
            The image is not square.
        """
        check_square(image)
        dino, _ = self.features(image)
        self.predictor.set_image(image)
        sam = self.predictor.features.squeeze(0).permute(1, 2, 0)
        cells = [self._cells(each) for each in (masked_picture, *part_pictures)]
        at = [(float(x) / image.shape[1] * GRID, float(y) / image.shape[0] * GRID) for x, y in points]
        found = [
            [_of_mask(dense, each) for each in cells] + [_sample(dense, x, y) for x, y in at] for dense in (sam, dino)
        ]
        weights = torch.full((3, 1), 1 / 3, device=self.device)
        return EagerTarget(found[0][0], found[1][0], found[0][1:], found[1][1:], len(at), weights)

    @torch.no_grad()
    def segment(self, frame: Frame, target: EagerTarget) -> EagerFrame:
        """Cut the target out of a frame.

        Parameters
        ----------
        frame : (H, H, 3) uint8 array
        target : EagerTarget

        Returns
        -------
        EagerFrame

        Raises
        ------
        InputError
            The frame is not square.
        """
        clock = Stopwatch()
        cells = self._encode(frame, clock)
        maps = [self._similarity(target.sam, target.dino, cells)]
        clock.lap("similarity")
        prompt = _first_prompt(maps[0])
        clock.lap("points")
        for sam, dino in zip(target.parts_sam, target.parts_dino, strict=True):
            maps.append(self._similarity(sam, dino, cells))
            clock.lap("similarity")
            prompt = _with(prompt, max_point(maps[-1]), 1)
            clock.lap("points")

        first = self.predictor.predict(prompt, clock)
        mask = ((first.high_res * target.weights.unsqueeze(-1)).sum(0) > 0).numpy(force=True)
        settled = (first.low_res * target.weights.numpy(force=True)[..., None]).sum(0)[None]
        clock.lap("resize")
        prompts, decodes = [prompt], [first]
        for turn in range(2):
            box = box_of(mask)
            # Inside the box of the first mask, then everywhere again
            prompt = _with(prompt, min_point(maps[0], box if turn == 0 else None), 0)
            prompt = replace(prompt, box=box, mask_input=settled)
            clock.lap("points")
            out = self.predictor.predict(prompt, clock)
            mask, settled = out.masks[best(out)], out.low_res[best(out)][None]
            prompts.append(prompt)
            decodes.append(out)
        masked = frame.transpose(2, 0, 1) * mask
        clock.lap("resize")
        timings = clock.milliseconds(1)
        return EagerFrame(mask, masked, maps, prompts, decodes, self.predictor.features, cells.tokens, timings)

    def adapt(self, target: EagerTarget, image: Frame, mask: Mask, *, steps: int = STEPS, seed: int = 0) -> EagerTarget:
        """Learn the mask weights with a decode at every step, the human points' features jittered.

        Parameters
        ----------
        target : EagerTarget
        image : (H, H, 3) uint8 array
            The reference image.
        mask : (H, H) bool array
            Where the target is in it.
        steps : int
            1,000 officially.
        seed : int
            Of the jitter.

        Returns
        -------
        EagerTarget
            The target with learned `weights`.
        """
        with torch.no_grad():
            cells = self._encode(image, Stopwatch())
            base = _first_prompt(self._similarity(target.sam, target.dino, cells))
            from_masks = len(target.parts_sam) - target.points
            pairs = list(zip(target.parts_sam, target.parts_dino, strict=True))
            for sam, dino in pairs[:from_masks]:
                base = _with(base, max_point(self._similarity(sam, dino, cells)), 1)
        random = torch.Generator().manual_seed(seed)

        @torch.no_grad()
        def decode(_step: int) -> Tensor:
            prompt = base
            for sam, dino in pairs[from_masks:]:
                similar = self._similarity(jitter(sam, random), jitter(dino, random), cells)
                prompt = _with(prompt, max_point(similar), 1)
            return self.predictor.predict(prompt).high_res.cpu()

        weights = torch.from_numpy(fit(decode, mask, steps=steps))[:, None]
        return replace(target, weights=weights.to(self.device))

    def _encode(self, frame: Frame, clock: Stopwatch) -> _Cells:
        """Encode a frame on both sides, DINOv2's first, and normalise every cell."""
        dino, tokens = self.features(frame, clock)
        dino = dino / dino.norm(dim=-1, keepdim=True)
        dino = dino.permute(2, 0, 1).reshape(dino.shape[-1], -1)
        clock.lap("similarity")
        self.predictor.set_image(frame, clock)
        sam = self.predictor.features.squeeze()
        sam = (sam / sam.norm(dim=0, keepdim=True)).reshape(sam.shape[0], -1)
        clock.lap("similarity")
        return _Cells(sam, dino, tokens)

    def _similarity(self, sam: Tensor, dino: Tensor, cells: _Cells) -> Tensor:
        """Return a feature's similarity with both maps, each brought to the frame, averaged there: (H, W)."""
        each = []
        for feature, dense in ((dino, cells.dino), (sam, cells.sam)):
            cosine = (feature @ dense).reshape(1, 1, GRID, GRID)
            larger = F.interpolate(cosine, scale_factor=4, mode="bilinear", align_corners=False)
            each.append(self.predictor.postprocess(larger).squeeze())
        return (each[0] + each[1]) / 2

    def _cells(self, masked_picture: Frame) -> Tensor:
        """Return which cells a masked picture's target reaches, (64, 64) bool."""
        planes = self.predictor.transform(masked_picture)
        small = F.interpolate(planes, (GRID, GRID), mode="bilinear", align_corners=False)
        return small.squeeze()[0] > 0


@dataclass(frozen=True, eq=False)
class _Cells:
    """Normalised cells (C, 64 * 64) of both maps, and DINOv2's tokens as they came."""

    sam: Tensor
    dino: Tensor
    tokens: Tensor


def max_point(similarity: Tensor) -> _Points:
    """Return the point (1, 2), as (x, y), where an (H, W) map is highest."""
    return _place(similarity.flatten().topk(1).indices, similarity.shape[1])


def min_point(similarity: Tensor, box: _Points | None = None) -> _Points:
    """Return the point (1, 2), as (x, y), where an (H, W) map is lowest inside a box; (0, 0) where that is empty.

    The box's last row and column do not count; by default it is all of the map.
    """
    if box is None:
        box = np.array([0, 0, similarity.shape[0] - 1, similarity.shape[1] - 1])
    inside = similarity.clone()[box[1] : box[3], box[0] : box[2]]
    if 0 in inside.shape:
        return np.zeros((1, 2), np.int64)
    return np.asarray(_place(inside.flatten().topk(1, largest=False).indices, inside.shape[1]) + box[:2])


def box_of(mask: Mask) -> _Points:
    """Return a mask's bounding box (4,), corners inclusive; (1, 1, W - 1, H - 1) of an empty one."""
    y, x = np.nonzero(mask)
    if len(y) == 0:
        return np.array([1, 1, mask.shape[1] - 1, mask.shape[0] - 1])
    return np.array([x.min(), y.min(), x.max(), y.max()])


def best(prediction: Prediction) -> int:
    """Return which of the three masks has the highest predicted IoU."""
    return int(np.argmax(prediction.iou))


def _place(index: Tensor, width: int) -> _Points:
    row = index // width
    return torch.stack([index - row * width, row], -1).numpy(force=True)


def _first_prompt(similarity: Tensor) -> EagerPrompt:
    points = np.concatenate([max_point(similarity), min_point(similarity)])
    return EagerPrompt(points, np.array([1, 0]))


def _with(prompt: EagerPrompt, point: _Points, label: int) -> EagerPrompt:
    """Add a point."""
    return replace(
        prompt, points=np.concatenate([prompt.points, point]), labels=np.concatenate([prompt.labels, [label]])
    )


def _of_mask(dense: Tensor, cells: Tensor) -> Tensor:
    """Point feature (1, C) of a (64, 64, C) map over the cells of a mask."""
    inside = dense[cells]
    return _unit((inside.max(dim=0).values / 2 + inside.mean(0) / 2).unsqueeze(0))


def _sample(dense: Tensor, x: float, y: float) -> Tensor:
    """Point feature (1, C) at a place in cells, without a half-pixel shift; beyond the last cell that one counts."""
    left, top, last = int(x), int(y), GRID - 1
    right, bottom = min(left + 1, last), min(top + 1, last)
    across, down = x - left, y - top
    feature = (
        dense[top, left] * (1 - across) * (1 - down)
        + dense[bottom, left] * (1 - across) * down
        + dense[top, right] * across * (1 - down)
        + dense[bottom, right] * across * down
    )
    return _unit(feature.unsqueeze(0))


def _unit(feature: Tensor) -> Tensor:
    unit: Tensor = feature / feature.norm(dim=-1, keepdim=True)
    return unit
