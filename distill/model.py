"""The networks of the ``tiny`` bundle: an EfficientViT-style encoder with two heads, and a SAM-style prompt decoder.

The encoder follows EfficientViT (Cai et al., ICCV 2023) and EfficientViT-SAM (arXiv 2402.05008): fused residual blocks,
ReLU linear attention in the deepest stage, a neck that brings three stages to one grid. The decoder follows Segment
Anything (arXiv 2304.02643): random Fourier positions, labelled points, a two-way transformer, hypernetworks for the
masks. Differences are described at each class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMPTY_SLOT, PADDING, NEGATIVE, POSITIVE, BOX_START, BOX_END = -2, -1, 0, 1, 2, 3
_MASKED = -1e4  # added to attention logits: its exponential is 0, yet half precision can hold it


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks. ``side`` must be 16 times a whole number; the grid is a quarter of it."""

    side: int = 96
    stem: int = 24
    widths: tuple[int, int, int] = (48, 96, 160)
    depths: tuple[int, int, int] = (2, 2, 4)
    channels: int = 64
    neck: int = 2
    tokens: int = 128
    heads: int = 4
    layers: int = 2
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

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, activation: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if activation else []))


class FusedResidual(nn.Module):
    """A 3×3 convolution that expands and a 1×1 that projects, with a shortcut where shapes allow it.

    As in the fine stages of EfficientViT's large variants: processors run dense convolutions more efficiently than
    depthwise ones.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expand: int = 2) -> None:
        super().__init__()
        middle = inputs * expand
        self.body = nn.Sequential(ConvNorm(inputs, middle, 3, stride), ConvNorm(middle, outputs, activation=False))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project, with a shortcut; for the coarse stage, where it is cheap."""

    def __init__(self, channels: int, expand: int = 4) -> None:
        super().__init__()
        middle = channels * expand
        self.body = nn.Sequential(
            ConvNorm(channels, middle),
            ConvNorm(middle, middle, 3, groups=middle),
            ConvNorm(middle, channels, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        y: Tensor = self.body(x)
        return x + y


class LinearAttention(nn.Module):
    """EfficientViT's multi-scale ReLU linear attention: global context at a cost linear in the number of cells."""

    def __init__(self, channels: int, head: int = 16) -> None:
        super().__init__()
        self.head = head
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.wider = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project = ConvNorm(2 * channels, channels, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.wider(qkv)], 1)
        qkv = qkv.reshape(batch, -1, 3 * self.head, height * width).float()
        q, k, v = qkv.chunk(3, 2)
        q, k = F.relu(q), F.relu(k)
        # Sums over cells would overflow in half precision: they stay in float32, divided by the number of cells.
        k = k / (height * width)
        context = v @ k.transpose(-1, -2)
        total = k.sum(-1, keepdim=True)
        out = (context @ q) / (total.transpose(-1, -2) @ q + 1e-6)
        added: Tensor = self.project(out.reshape(batch, -1, height, width).to(x.dtype))
        return x + added


class Encoder(nn.Module):
    """Image → embedding for the decoder and features for correspondence, on one grid, from one trunk."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        first, second, third = shape.widths
        self.stem = nn.Sequential(ConvNorm(3, shape.stem, 3, 2), ConvNorm(shape.stem, first, 3, 2))
        self.stage1 = nn.Sequential(*(FusedResidual(first, first) for _ in range(shape.depths[0])))
        self.stage2 = nn.Sequential(
            FusedResidual(first, second, 2), *(FusedResidual(second, second, expand=1) for _ in range(shape.depths[1]))
        )
        deep: list[nn.Module] = [FusedResidual(second, third, 2)]
        for _ in range(shape.depths[2]):
            deep += [LinearAttention(third), InvertedResidual(third)]
        self.stage3 = nn.Sequential(*deep)
        self.lateral = nn.ModuleList(ConvNorm(width, shape.channels, activation=False) for width in shape.widths)
        self.neck = nn.Sequential(*(FusedResidual(shape.channels, shape.channels, expand=1) for _ in range(shape.neck)))
        self.embedding = nn.Conv2d(shape.channels, shape.channels, 1)
        self.features = nn.Conv2d(shape.channels, shape.channels, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, 3, S, S) → embedding (B, C, G, G), features (B, C, G, G), with G = S/4."""
        fine = self.stage1(self.stem(image))
        middle = self.stage2(fine)
        coarse = self.stage3(middle)
        x = self.lateral[1](middle) + F.interpolate(self.lateral[2](coarse), scale_factor=2.0, mode="bilinear")
        x = self.lateral[0](fine) + F.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = self.neck(x)
        return self.embedding(x), self.features(x)


class Attention(nn.Module):
    """Multi-head attention, as in SAM; `reduce` divides its number of channels."""

    def __init__(self, channels: int, heads: int, reduce: int = 1) -> None:
        super().__init__()
        inner = channels // reduce
        self.heads, self.scale = heads, (inner // heads) ** -0.5
        self.q, self.k, self.v = (nn.Linear(channels, inner) for _ in range(3))
        self.out = nn.Linear(inner, channels)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend; ``bias`` (B, 1, 1, keys) is added to the logits."""
        q, k, v = (self._split(layer(x)) for layer, x in ((self.q, q), (self.k, k), (self.v, v)))
        logits = (q * self.scale) @ k.transpose(-1, -2)
        if bias is not None:
            logits = logits + bias
        merged: Tensor = self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return merged

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Tokens attend to tokens, then to the image; then the image attends to the tokens."""

    def __init__(self, channels: int, heads: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.own = Attention(channels, heads)
        self.to_image = Attention(channels, heads, 2)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.from_tokens = Attention(channels, heads, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (B, N, C) and image (B, cells, C), each with its positions; ``bias`` hides empty slots."""
        if self.first:
            tokens = self.own(tokens, tokens, tokens, bias)
        else:
            q = tokens + token_pe
            tokens = tokens + self.own(q, q, tokens, bias)
        tokens = self.norms[0](tokens)
        tokens = self.norms[1](tokens + self.to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norms[2](tokens + self.mlp(tokens))
        image = self.norms[3](image + self.from_tokens(image + image_pe, tokens + token_pe, tokens, bias))
        return tokens, image


class Decoder(nn.Module):
    """Embedding and prompts → four masks and their predicted IoU.

    Differs from SAM's decoder in three ways, all for speed on a CPU: the transformer works on the grid at half its
    resolution; a shortcut brings the full grid back; and instead of two transposed convolutions a hypernetwork gives
    each of a cell's 4 × 4 sub-pixels its own weight vector.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        c, t = shape.channels, shape.tokens
        self.shape = shape
        generator = torch.Generator().manual_seed(0)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, t // 2, generator=generator))
        self.labels = nn.Embedding(5, t)  # not a point, negative, positive, box start, box end
        self.own_tokens = nn.Embedding(5, t)  # IoU, four masks
        self.no_mask = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.mask_input = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(16, c, 1), nn.ReLU(inplace=True), nn.Conv2d(c, c, 1)
        )
        self.down = nn.Conv2d(c, t, 2, 2)
        self.blocks = nn.ModuleList(TwoWayBlock(t, shape.heads, first=i == 0) for i in range(shape.layers))
        self.final = Attention(t, shape.heads, 2)
        self.final_norm = nn.LayerNorm(t)
        self.up = nn.Sequential(nn.Conv2d(t, 4 * c, 1), nn.PixelShuffle(2))
        self.mix = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(c, c, 1))
        self.hyper = nn.ModuleList(self._head(t, 16 * c) for _ in range(4))
        self.quality = self._head(t, 4)
        ys = (torch.arange(shape.grid // 2) + 0.5) / (shape.grid // 2)
        where = torch.stack(torch.meshgrid(ys, ys, indexing="ij")[::-1], -1)
        self.image_pe: Tensor
        self.register_buffer("image_pe", self._positions(where).flatten(0, 1)[None])

    @staticmethod
    def _head(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs)
        )

    def _positions(self, where: Tensor) -> Tensor:
        """Return random Fourier features of (…, 2) coordinates in 0..1."""
        angle = 2 * torch.pi * ((2 * where - 1) @ self.frequencies)
        return torch.cat([angle.sin(), angle.cos()], -1)

    def _prompts(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed point slots; also return the bias that hides empty slots from every attention."""
        known = torch.stack([labels == value for value in (PADDING, NEGATIVE, POSITIVE, BOX_START, BOX_END)], -1)
        position = self._positions((coords + 0.5) / self.shape.side)
        is_place = (labels >= 0).to(coords.dtype)[..., None]
        sparse = position * is_place + known.to(coords.dtype) @ self.labels.weight
        return sparse, (labels == EMPTY_SLOT).to(coords.dtype) * _MASKED

    def forward(
        self, embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode one set of prompts per image.

        Parameters
        ----------
        embedding : (B, C, G, G)
        point_coords : (B, N, 2)
            (x, y) in the prompt frame, whose longest side is the encoder's.
        point_labels : (B, N) float
            1 target, 0 background, 2 and 3 box corners, −1 "not a point", −2 empty slot.
        mask_input : (B, 1, 4G, 4G)
            Logits of an earlier decode; ignored where ``has_mask_input`` (B,) is 0.

        Returns
        -------
        low_res_masks : (B, 4, 4G, 4G)
        iou : (B, 4)
        """
        dense = self.mask_input(mask_input)
        has = has_mask_input.reshape(-1, 1, 1, 1).to(dense.dtype)
        source = embedding + dense * has + self.no_mask * (1 - has)
        sparse, empty = self._prompts(point_coords, point_labels)
        # Padding and adding, instead of expanding and concatenating, needs no node that computes the batch
        tokens = F.pad(sparse, (0, 0, 5, 0)) + F.pad(self.own_tokens.weight, (0, 0, 0, sparse.shape[1]))
        bias = F.pad(empty, (5, 0))[:, None, None, :]
        token_pe, image = tokens, self.down(source).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens, image = block(tokens, image, token_pe, self.image_pe, bias)
        tokens = self.final_norm(tokens + self.final(tokens + token_pe, image + self.image_pe, image))
        half = self.shape.grid // 2
        image = image.transpose(1, 2).unflatten(2, (half, half))
        pixels = self.up(image) + source
        pixels = pixels + self.mix(pixels)
        weights = torch.stack([head(tokens[:, 1 + i]) for i, head in enumerate(self.hyper)], 1)
        weights = weights.reshape(-1, 64, self.shape.channels)  # 4 masks of 16 sub-pixels
        masks = (weights @ pixels.flatten(2)) * self.shape.channels**-0.5
        masks = masks.reshape(-1, 64, self.shape.grid, self.shape.grid)
        return F.pixel_shuffle(masks, 4), self.quality(tokens[:, 0])


class Tiny(nn.Module):
    """Encoder and decoder, with an additional head for training that the bundle does not contain."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        # Predicts what moves, per sub-pixel of each cell. This additional task teaches the trunk early in training
        self.anything = nn.Conv2d(shape.channels, 16, 1)

    def objectness(self, embedding: Tensor) -> Tensor:
        """Return logits of "something that moves", (B, 1, 4G, 4G)."""
        return F.pixel_shuffle(self.anything(embedding), 4)
