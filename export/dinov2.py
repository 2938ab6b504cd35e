"""DINOv2's vision transformers, with the official names of every parameter (Oquab et al., arXiv 2304.07193).

Registers: Darcet et al., arXiv 2309.16588. An exported model has one input side: its position embeddings are
interpolated once, with the result that the official code computes at every call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FEATURES", "PATCH", "DinoV2", "FeatureShape", "PatchFeatures"]

PATCH = 14
"""Side of a patch, in pixels."""

_EPSILON = 1e-6
_TRAINED_GRID = 37  # patches per side at 518 pixels, the input side of the official position embeddings
_OFFSET = 0.1  # models without registers scale by (g + 0.1) / 37; those with registers resize to g with antialiasing


@dataclass(frozen=True)
class FeatureShape:
    """Hyperparameters of one variant.

    Parameters
    ----------
    width, depth, heads : int
        Channels of a token, number of blocks, number of attention heads.
    gated : bool
        Whether the feed-forward layers are SwiGLU (ViT-g) instead of GELU.
    registers : int
        Number of register tokens.
    """

    width: int
    depth: int
    heads: int
    gated: bool = False
    registers: int = 0


_PLAIN = {
    "vits14": FeatureShape(384, 12, 6),
    "vitb14": FeatureShape(768, 12, 12),
    "vitl14": FeatureShape(1024, 24, 16),
    "vitg14": FeatureShape(1536, 40, 24, gated=True),
}

FEATURES = _PLAIN | {
    f"{name}-reg": FeatureShape(each.width, each.depth, each.heads, each.gated, 4) for name, each in _PLAIN.items()
}
"""Variant -> shape."""


class PatchEmbed(nn.Module):
    """A linear embedding of every patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, g * g, width)."""
        tokens: Tensor = self.proj(image)
        return tokens.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scaled = False  # whether the scale is folded into the weights
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if not self.scaled:
            q = q * (width // self.heads) ** -0.5
        logits = q @ k.transpose(-2, -1)
        out: Tensor = self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, count, width))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwiGLU(nn.Module):
    """A gated feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        gate, value = self.w12(x).chunk(2, -1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention, then feed-forward, each with a norm before and a residual sum after."""

    def __init__(self, shape: FeatureShape) -> None:
        super().__init__()
        width = shape.width
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width, shape.heads)
        self.ls1: nn.Module = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = SwiGLU(width) if shape.gated else Mlp(width)
        self.ls2: nn.Module = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, width) -> (B, n, width)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class DinoV2(nn.Module):
    """DINOv2, with every parameter of an official checkpoint.

    Parameters
    ----------
    variant : str
        A key of `FEATURES`.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        shape = self.shape = FEATURES[variant]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED_GRID**2, shape.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, shape.width)) if shape.registers else None
        self.mask_token = nn.Parameter(torch.zeros(1, shape.width))  # used in training only, but in every checkpoint
        self.patch_embed = PatchEmbed(shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=_EPSILON)

    def positions(self, grid: int) -> Tensor:
        """Interpolate the position embeddings for a grid as the official code does -> (1, 1 + grid * grid, width)."""
        if grid == _TRAINED_GRID:
            return self.pos_embed
        place = self.pos_embed[:, 1:].unflatten(1, (_TRAINED_GRID, _TRAINED_GRID)).permute(0, 3, 1, 2)
        if self.shape.registers:
            place = F.interpolate(place, (grid, grid), mode="bicubic", antialias=True)
        else:
            # The samples depend on the scale, not on the size: the offset shifts each slightly
            scale = (grid + _OFFSET) / _TRAINED_GRID
            place = F.interpolate(place, scale_factor=(scale, scale), mode="bicubic")
        if place.shape[-1] != grid:
            raise ValueError(f"position embeddings came out at {place.shape[-1]} instead of {grid} patches a side")
        return torch.cat([self.pos_embed[:, :1], place.flatten(2).transpose(1, 2)], 1)

    def constant_tokens(self, grid: int) -> Tensor:
        """Return the part of the tokens that does not depend on the image, (1, 1 + registers + grid * grid, width).

        These are the class token with its position, the registers, which have no position, and the patches' positions.
        """
        place = self.positions(grid)
        registers = [] if self.register_tokens is None else [self.register_tokens]
        return torch.cat([self.cls_token + place[:, :1], *registers, place[:, 1:]], 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, S, S) -> x_norm_patchtokens (B, g * g, width); interpolates positions at every call, as officially."""
        return self.tokens(image, self.constant_tokens(image.shape[-1] // PATCH))

    def tokens(self, image: Tensor, constant: Tensor) -> Tensor:
        """As `forward`, with `constant_tokens` computed beforehand."""
        before = 1 + self.shape.registers
        x = F.pad(self.patch_embed(image), (0, 0, before, 0)) + constant
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)[:, before:]
        return out


class PatchFeatures(nn.Module):
    """The graph ``features``: patch tokens as a map, with position embeddings computed once for one input side.

    Parameters
    ----------
    model : DinoV2
        With its weights.
    side : int
        Input side in pixels, a multiple of 14.
    """

    constant: Tensor

    def __init__(self, model: DinoV2, side: int) -> None:
        super().__init__()
        self.model = model
        self.grid = side // PATCH
        self.register_buffer("constant", model.constant_tokens(self.grid).detach())

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 3, S, S) -> features (B, width, g, g)."""
        tokens: Tensor = self.model.tokens(image, self.constant)
        maps: Tensor = tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return maps
