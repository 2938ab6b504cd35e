"""The networks of the eager reference: SAM's predictor and DINOv2's feature map, in PyTorch, one image at a time.

Written after the official code's behaviour (segment-anything's predictor as EfficientViT-SAM and SAM-G use it), with
the same operations in the same order: each image is transformed by Pillow, each prompt is embedded anew, each set of
masks is made as large as the prompt frame before it is made as small as the image. Two things are cheaper than
officially: nothing records gradients, where the official frame records DINOv2's, and layer norms over channels are one
operation instead of six.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samg_fast.checks import Floats, Frame, Mask
from samg_fast.errors import InputError
from samg_fast.export.dinov2 import PATCH, DinoV2
from samg_fast.export.sam import GRID, PROMPT_SIDE, EfficientViTSam
from samg_fast.pipeline.stopwatch import Stopwatch

__all__ = ["DinoFeatures", "EagerPrompt", "Prediction", "SamPredictor", "check_square"]

_SAM_MEAN, _SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # in units of 0..255
_DINO_MEAN, _DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # in units of 0..1
_DINO_SIDE = 448
_NOT_A_POINT, _BOX_CORNERS = -1, (2, 3)


@dataclass(frozen=True, eq=False)
class EagerPrompt:
    """What one decode is asked: as many points as there are, and nothing in place of those that are not.

    Parameters
    ----------
    points : (n, 2) int64 array
        (x, y) in pixels of the image.
    labels : (n,) int64 array
        1 for a positive point, 0 for a negative one.
    box : (4,) int64 array or None
        (x_min, y_min, x_max, y_max) in pixels of the image.
    mask_input : (1, 256, 256) float32 array or None
        Logits of an earlier decode.
    """

    points: NDArray[np.int64]
    labels: NDArray[np.int64]
    box: NDArray[np.int64] | None = None
    mask_input: Floats | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one decode gave: three masks.

    Parameters
    ----------
    masks : (3, H, W) bool array
    iou : (3,) float32 array
        Predicted IoU.
    low_res : (3, 256, 256) float32 array
        Logits.
    high_res : (3, H, W) float32 tensor
        Logits at the image's size.
    """

    masks: Mask
    iou: Floats
    low_res: Floats
    high_res: Tensor


def check_square(image: Frame) -> None:
    """Refuse an image that is not square: the official code reshapes DINOv2's tokens to a square.

    Raises
    ------
    InputError
        The image is not square.
    """
    if image.shape[0] != image.shape[1]:
        raise InputError(f"the official frame takes square pictures, not {image.shape[0]} x {image.shape[1]} pixels")


class SamPredictor:
    """An EfficientViT-SAM model with an image set.

    Parameters
    ----------
    sam : EfficientViTSam
        In evaluation mode.
    compiled : bool
        Whether `torch.compile` makes encoder and mask decoder faster.
    device : torch.device or str
        Where the model is. Images and prompts come from the host, and points and masks go back there.
    """

    features: Tensor
    """(1, 256, 64, 64) float32 embedding of the image that is set."""

    def __init__(self, sam: EfficientViTSam, *, compiled: bool = False, device: torch.device | str = "cpu") -> None:
        self.side = sam.shape.side
        self._device = device
        self._prompts = sam.prompt_encoder
        self._encode: Callable[[Tensor], Tensor] = torch.compile(sam.image_encoder) if compiled else sam.image_encoder
        # The number of tokens differs from decode to decode
        self._decode: Callable[..., tuple[Tensor, Tensor]] = (
            torch.compile(sam.mask_decoder, dynamic=True) if compiled else sam.mask_decoder
        )
        self._size = (0, 0)

    @torch.no_grad()
    def transform(self, image: Frame) -> Tensor:
        """Bring an image (H, W, 3) uint8 to the encoder's input (1, 3, S, S): Pillow, normalise, zero-pad."""
        height, width = _fitted(image.shape[:2], self.side)
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        planes = torch.from_numpy(resized).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = (torch.tensor(values)[:, None, None] / 255 for values in (_SAM_MEAN, _SAM_STD))
        padded = F.pad((planes - mean) / std, (0, self.side - width, 0, self.side - height))
        return padded[None].to(self._device)

    @torch.no_grad()
    def set_image(self, image: Frame, clock: Stopwatch | None = None) -> None:
        """Encode an image (H, W, 3) uint8; laps ``preprocess`` and ``encoder``."""
        self._size = (image.shape[0], image.shape[1])
        planes = self.transform(image)
        _lap(clock, "preprocess")
        self.features = self._encode(planes)
        _lap(clock, "encoder")

    @torch.no_grad()
    def predict(self, prompt: EagerPrompt, clock: Stopwatch | None = None) -> Prediction:
        """Decode one prompt into three masks; laps ``decodes`` and ``resize``."""
        coords, labels = self._tokens(prompt)
        sparse = self._prompts.sparse(coords, labels)
        if prompt.mask_input is None:
            dense = self._prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(-1, -1, GRID, GRID)
        else:
            before = torch.as_tensor(prompt.mask_input, dtype=torch.float32, device=self._device)
            dense = self._prompts.mask_downscaling(before[None])
        hidden = torch.zeros(labels.shape, device=self._device)  # no slot is empty
        low_res, iou = self._decode(self.features + dense, self._prompts.pe_layer.grid(), sparse, hidden)
        low_res, iou = low_res[:, 1:], iou[:, 1:]  # the first mask is for unambiguous prompts
        _lap(clock, "decodes")
        high_res = self.postprocess(low_res)
        masks = high_res > 0
        _lap(clock, "resize")
        return Prediction(
            masks[0].numpy(force=True), iou[0].numpy(force=True), low_res[0].numpy(force=True), high_res[0]
        )

    @torch.no_grad()
    def postprocess(self, maps: Tensor) -> Tensor:
        """Bring maps (1, n, 256, 256) to the image: up to the prompt frame, crop, and down to (1, n, H, W)."""
        height, width = _fitted(self._size, PROMPT_SIDE)
        large = F.interpolate(maps, (PROMPT_SIDE, PROMPT_SIDE), mode="bilinear", align_corners=False)
        return F.interpolate(large[..., :height, :width], self._size, mode="bilinear", align_corners=False)

    def _tokens(self, prompt: EagerPrompt) -> tuple[Tensor, Tensor]:
        """Points, then the box's corners or SAM's "not a point", in the prompt frame: (1, N, 2) and (1, N)."""
        height, width = _fitted(self._size, PROMPT_SIDE)
        scale = np.array([width / self._size[1], height / self._size[0]])
        if prompt.box is None:
            more, kinds = np.zeros((1, 2)), [_NOT_A_POINT]
        else:
            more, kinds = prompt.box.reshape(2, 2).astype(float) * scale, list(_BOX_CORNERS)
        coords = np.concatenate([prompt.points.astype(float) * scale, more])
        labels = np.concatenate([prompt.labels, kinds])
        as_tensor = partial(torch.as_tensor, dtype=torch.float32, device=self._device)
        return as_tensor(coords)[None], as_tensor(labels)[None]


class DinoFeatures:
    """A DINOv2 model as SAM-G uses it.

    Parameters
    ----------
    dino : DinoV2
        In evaluation mode.
    compiled : bool
        Whether `torch.compile` makes it faster.
    device : torch.device or str
        Where the model is.
    """

    def __init__(self, dino: DinoV2, *, compiled: bool = False, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._run: Callable[[Tensor], Tensor] = torch.compile(dino) if compiled else dino

    @torch.no_grad()
    def transform(self, image: Frame) -> Tensor:
        """Bring a square image (H, H, 3) uint8 to (1, 3, 448, 448): /255, resize in float, normalise."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
        planes = pixels.permute(2, 0, 1).contiguous().float().div(255)
        resized = F.interpolate(planes[None], (_DINO_SIDE, _DINO_SIDE), mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values, device=self._device)[:, None, None] for values in (_DINO_MEAN, _DINO_STD))
        return (resized - mean) / std

    @torch.no_grad()
    def __call__(self, image: Frame, clock: Stopwatch | None = None) -> tuple[Tensor, Tensor]:
        """Describe a square image; laps ``preprocess`` and ``features``.

        Parameters
        ----------
        image : (H, H, 3) uint8 array
        clock : Stopwatch, optional

        Returns
        -------
        cells : (64, 64, C) float32 tensor
            The tokens on the embedding's grid, not normalised.
        tokens : (1, C, 32, 32) float32 tensor
            As they come.

        Raises
        ------
        InputError
            The image is not square.
        """
        check_square(image)
        planes = self.transform(image)
        _lap(clock, "preprocess")
        grid = _DINO_SIDE // PATCH
        tokens = self._run(planes).reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        cells = F.interpolate(tokens, (GRID, GRID), mode="bilinear", align_corners=False)
        _lap(clock, "features")
        return cells.permute(0, 2, 3, 1).squeeze(0), tokens


def _fitted(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the height and width of an image whose longest side is made `side`, rounded half up."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def _lap(clock: Stopwatch | None, stage: str) -> None:
    if clock is not None:
        clock.lap(stage)
