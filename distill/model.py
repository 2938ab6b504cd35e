"""The networks of the ``tiny`` bundle: a convolutional encoder, and a small convolutional prompt decoder.

Redrawn for a CPU, where a frame's time is that of few, large, dense operations. The encoder is a U-Net (Ronneberger et
al., 2015) with space-to-depth at its entry. Whatever does not depend on the prompts is computed in it, once a frame.
The decoder reads prompts as maps, as RITM does (Sofiiuk et al., arXiv 2102.06583), and the target's feature as
Personalize-SAM's target-semantic prompt (arXiv 2305.03048); three decodes refine one mask, as in SAM-G. It has no
attention: what a point says reaches every cell by correlation with the point's own feature.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY_SLOT, PADDING, NEGATIVE, POSITIVE, BOX_START, BOX_END = -2, -1, 0, 1, 2, 3
_PROMPT_MAPS = 8  # positive, negative, box, "has a box", "has a mask", correlation with target, positive and negative
_DETAIL_SCALE = 0.02  # of the detail channels in the embedding: they hardly count in its cosine similarity


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks. ``side`` must be 16 times a whole number; the grid is a quarter of it.

    Attributes
    ----------
    side : int
        Side of the encoder's input in pixels, and of the masks.
    widths : tuple of 4 int
        Channels at a half, a quarter, an eighth and a sixteenth of the side.
    depths : tuple of 4 int
        Residual convolutions at each.
    channels : int
        Channels of the semantic half of the embedding, and of the features.
    detail : int
        Channels of the other half of the embedding, which say what each of a cell's 4 × 4 pixels shows.
    decoder : tuple of 2 int
        The decoder's channels at a quarter and at an eighth of the side.
    slots : int
        Prompt slots.
    """

    side: int = 96
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    depths: tuple[int, int, int, int] = (0, 1, 1, 3)
    channels: int = 64
    detail: int = 64
    decoder: tuple[int, int] = (32, 64)
    slots: int = 16

    @property
    def grid(self) -> int:
        """Side of the embedding grid."""
        return self.side // 4

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, optional ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, activation: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if activation else []))


class Residual(nn.Module):
    """A 3×3 convolution with a shortcut: the shape of operation that processors run best."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ConvNorm(channels, channels, 3, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return F.relu(x + self.body(x))


class Encoder(nn.Module):
    """Image → embedding for the decoder, and features for correspondence, which are its semantic half."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = shape.widths

        def stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
            return nn.Sequential(ConvNorm(inputs, outputs, 3, 2), *(Residual(outputs) for _ in range(depth)))

        self.at_half = nn.Sequential(
            nn.Conv2d(3, half, 4, 2, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            *(Residual(half) for _ in range(shape.depths[0])),
        )
        self.at_quarter = stage(half, quarter, shape.depths[1])
        self.at_eighth = stage(quarter, eighth, shape.depths[2])
        self.at_sixteenth = stage(eighth, sixteenth, shape.depths[3])
        self.to_eighth = ConvNorm(sixteenth, eighth, activation=False)
        self.join_eighth = Residual(eighth)
        self.to_quarter = ConvNorm(eighth, quarter, activation=False)
        self.join_quarter = Residual(quarter)
        self.semantic = nn.Conv2d(quarter, shape.channels, 1)
        self.detail = nn.Sequential(nn.Conv2d(half, shape.detail, 2, 2, bias=False), nn.BatchNorm2d(shape.detail))
        self.from_quarter = nn.Conv2d(quarter, shape.detail, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, 3, S, S) → embedding (B, C + D, G, G), features (B, C, G, G), with G = S/4.

        The first C channels of the embedding are L2-normalised; its D detail channels are scaled down, so that its
        cosine similarity is nearly that of the first.
        """
        half = self.at_half(image)
        quarter = self.at_quarter(half)
        eighth = self.at_eighth(quarter)
        x = self.at_sixteenth(eighth)
        x = self.join_eighth(eighth + F.interpolate(self.to_eighth(x), scale_factor=2.0, mode="bilinear"))
        x = self.join_quarter(quarter + F.interpolate(self.to_quarter(x), scale_factor=2.0, mode="bilinear"))
        semantic = self.semantic(x)
        semantic = semantic / semantic.norm(dim=1, keepdim=True).clamp(min=1e-3)
        detail = _DETAIL_SCALE * F.hardtanh(self.detail(half) + self.from_quarter(x), -4, 4)
        return torch.cat([semantic, detail], 1), semantic


class Decoder(nn.Module):
    """Embedding and prompts → four masks and their predicted IoU.

    Prompts become maps on the embedding's grid: where the positive and negative points are, the inside of the box, the
    earlier mask, and the correlation of every cell with the target's feature and with the cells under the points. Three
    features (target, positive, negative) also weigh the embedding's channels. A few convolutions on these maps say what
    each cell is; with the detail channels, a last layer says which of its 4 × 4 pixels belong to the masks.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        c, (fine, coarse) = shape.channels, shape.decoder
        self.shape = shape
        self.prompts = nn.Conv2d(_PROMPT_MAPS + 16, fine, 3, padding=1)
        self.weigh = nn.Linear(3 * c, c)
        self.semantic = nn.Conv2d(c, fine, 1)
        self.down = nn.Conv2d(fine, coarse, 3, 2, 1)
        self.context = nn.Conv2d(coarse, coarse, 3, padding=1)
        self.everywhere = nn.Linear(coarse, coarse)
        self.up = nn.Conv2d(coarse, fine, 1)
        self.join = nn.Conv2d(fine, fine, 3, padding=1)
        self.pixels = nn.Conv2d(fine, shape.detail, 1)
        self.masks = nn.Conv2d(shape.detail, 64, 1)  # 4 masks of 16 pixels
        self.quality = nn.Sequential(nn.Linear(2 * coarse + 3 * c + 3, 64), nn.ReLU(), nn.Linear(64, 4))
        self.centres: Tensor
        self.register_buffer("centres", torch.arange(shape.grid) + 0.5)

    def _points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Return (B, 2, G, G): Gaussians around the positive and around the negative points, in cells."""
        near = torch.exp(-0.5 * (coords[..., None] - self.centres).square())  # (B, N, 2, G)
        x, y = near[:, :, 0], near[:, :, 1]
        chosen = torch.stack([labels == POSITIVE, labels == NEGATIVE], 1).to(coords.dtype)  # (B, 2, N)
        return (y[:, None] * chosen[..., None]).transpose(2, 3) @ x[:, None]

    def _box(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, 1, G, G), 1 inside the box and 0 outside, and (B, 1, 1, 1), whether there is one."""
        corners = torch.stack([labels == BOX_START, labels == BOX_END], 1).to(coords.dtype)
        has = corners[:, 0].sum(1)[:, None, None, None]
        where = corners @ coords  # (B, 2, 2): start and end, x and y
        after = torch.sigmoid(4 * (self.centres - where[:, 0, :, None]))
        inside = after * torch.sigmoid(4 * (where[:, 1, :, None] - self.centres))  # (B, 2, G)
        return (inside[:, 1, :, None] * inside[:, 0, None, :])[:, None] * has, has

    def forward(
        self,
        embedding: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        target: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode one set of prompts per image.

        Parameters
        ----------
        embedding : (B, C + D, G, G)
        point_coords : (B, N, 2)
            (x, y) in the prompt frame, whose longest side is the encoder's.
        point_labels : (B, N) float
            1 target, 0 background, 2 and 3 box corners, −1 "not a point", −2 empty slot.
        mask_input : (B, 1, 4G, 4G)
            Logits of an earlier decode; ignored where ``has_mask_input`` (B,) is 0.
        target : (B, C + D)
            The target's feature in the embedding; zeros where there is none.

        Returns
        -------
        low_res_masks : (B, 4, 4G, 4G)
        iou : (B, 4)
        """
        c = self.shape.channels
        semantic, detail = embedding[:, :c], embedding[:, c:]
        cells = semantic.flatten(2)
        coords = (point_coords + 0.5) / 4
        points = self._points(coords, point_labels)
        box, has_box = self._box(coords, point_labels)
        under = points.flatten(2)
        under = (under @ cells.transpose(1, 2)) / (under.sum(2, keepdim=True) + 0.05)  # (B, 2, C)
        vectors = torch.cat([target[:, None, :c], under], 1)
        alike = (vectors @ cells).unflatten(2, (self.shape.grid, self.shape.grid))
        has = has_mask_input.reshape(-1, 1, 1, 1).to(embedding.dtype)
        everywhere = 0 * box  # unlike zeros_like, this exports without shape arithmetic
        seen = F.pixel_unshuffle(mask_input.clamp(-8, 8) / 4, 4) * has
        x = self.prompts(torch.cat([points, box, everywhere + has_box, everywhere + has, alike, seen], 1))
        known = vectors.flatten(1)
        weighed = semantic * (1 + self.weigh(known))[..., None, None]
        x = F.relu(x + self.semantic(weighed * c**0.5))
        y = F.relu(self.down(x))
        y = y + F.relu(self.context(y))
        whole = self.shape.grid // 2
        mean, largest = F.avg_pool2d(y, whole).flatten(1), F.max_pool2d(y, whole).flatten(1)
        y = F.relu(y + self.everywhere(mean)[..., None, None])
        x = x + F.interpolate(self.up(y), scale_factor=2.0, mode="bilinear")
        x = F.relu(x + self.join(F.relu(x)))
        pixels = F.relu(self.pixels(x) + detail / _DETAIL_SCALE)
        masks = F.pixel_shuffle(self.masks(pixels), 4)
        most = F.max_pool2d(alike, self.shape.grid).flatten(1)
        return masks, self.quality(torch.cat([mean, largest, known, most], 1))


class Tiny(nn.Module):
    """Encoder and decoder, with an additional head for training that the bundle does not contain."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        # Predicts what moves, per pixel of each cell. This additional task teaches the trunk early in training
        self.anything = nn.Conv2d(shape.channels + shape.detail, 16, 1)

    def objectness(self, embedding: Tensor) -> Tensor:
        """Return logits of "something that moves", (B, 1, 4G, 4G)."""
        return F.pixel_shuffle(self.anything(embedding), 4)
