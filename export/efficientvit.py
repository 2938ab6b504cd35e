"""EfficientViT-SAM's image encoders, L0 to XL1, with the official names of every parameter.

EfficientViT (Cai et al., ICCV 2023, arXiv 2205.14756), its large variants and the SAM neck (Zhang et al., arXiv
2402.05008). Each module repeats the official one operation by operation; `samg_fast.export.fuse` makes them faster
for export.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ENCODERS", "EncoderShape", "ImageEncoder", "LayerNorm2d"]

EPSILON = 1e-6
"""Epsilon of every norm layer, the decoder's included; the official loader sets it."""

_HEAD = 32  # channels of a head of the linear attention
_EPSILON_DIVISION = 1e-15  # added to the linear attention's denominator


@dataclass(frozen=True)
class EncoderShape:
    """Hyperparameters of one variant.

    Parameters
    ----------
    side : int
        Input side in pixels in training; any multiple of 32 can be encoded.
    widths, depths, blocks, expands, fewer_norms : tuples, one entry per stage
        Channels; number of blocks after the first; their kind (``"res"``, ``"fmb"``, ``"mb"``, or ``"att3"`` and
        ``"att5"``: attention with an additional 3x3 or 5x5 aggregating convolution); their expansion factor; whether
        only the last convolution of a block has a norm.
    neck_depth, neck_expand : int
        Number of blocks in the neck, and their expansion factor.
    """

    side: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    blocks: tuple[str, ...]
    expands: tuple[int, ...]
    fewer_norms: tuple[bool, ...]
    neck_depth: int
    neck_expand: int

    @property
    def grid(self) -> int:
        """Side of the embedding's grid, as in SAM; it does not depend on the input side."""
        return 64


def _large(depths: tuple[int, ...], neck_depth: int) -> EncoderShape:
    return EncoderShape(
        side=512,
        widths=(32, 64, 128, 256, 512),
        depths=depths,
        blocks=("res", "fmb", "fmb", "mb", "att5"),
        expands=(1, 4, 4, 4, 6),
        fewer_norms=(False, False, False, True, True),
        neck_depth=neck_depth,
        neck_expand=1,
    )


def _extra_large(depths: tuple[int, ...], neck_depth: int) -> EncoderShape:
    return EncoderShape(
        side=1024,
        widths=(32, 64, 128, 256, 512, 1024),
        depths=depths,
        blocks=("res", "fmb", "fmb", "fmb", "att3", "att3"),
        expands=(1, 4, 4, 4, 4, 6),
        fewer_norms=(False, False, False, False, True, True),
        neck_depth=neck_depth,
        neck_expand=4,
    )


ENCODERS = {
    "l0": _large((1, 1, 1, 4, 4), 4),
    "l1": _large((1, 1, 1, 6, 6), 8),
    "l2": _large((1, 2, 2, 8, 8), 12),
    "xl0": _extra_large((0, 1, 1, 2, 3, 3), 6),
    "xl1": _extra_large((1, 2, 2, 4, 6, 6), 12),
}
"""Variant -> shape."""


def gelu() -> nn.Module:
    """Return EfficientViT's activation: GELU in its tanh approximation."""
    return nn.GELU(approximate="tanh")


class ConvLayer(nn.Module):
    """Convolution, optional batch norm, optional GELU."""

    norm: nn.Module | None
    act: nn.Module | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: bool = True,
        act: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON) if norm else None
        self.act = gelu() if act else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.act is None else self.act(x)


class ResBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, 3)
        self.conv2 = ConvLayer(channels, channels, 3, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.conv2(self.conv1(x))
        return out


class FusedMBConv(nn.Module):
    """An expanding 3x3 convolution, then a projecting 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, fewer_norm: bool) -> None:
        super().__init__()
        middle = inputs * expand
        self.spatial_conv = ConvLayer(inputs, middle, 3, stride, norm=not fewer_norm, bias=fewer_norm)
        self.point_conv = ConvLayer(middle, outputs, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        out: Tensor = self.point_conv(self.spatial_conv(x))
        return out


class MBConv(nn.Module):
    """Expand by 1x1, depthwise 3x3, project by 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, fewer_norm: bool) -> None:
        super().__init__()
        middle = inputs * expand
        self.inverted_conv = ConvLayer(inputs, middle, norm=not fewer_norm, bias=fewer_norm)
        self.depth_conv = ConvLayer(middle, middle, 3, stride, groups=middle, norm=not fewer_norm, bias=fewer_norm)
        self.point_conv = ConvLayer(middle, outputs, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        out: Tensor = self.point_conv(self.depth_conv(self.inverted_conv(x)))
        return out


class LinearAttention(nn.Module):
    """LiteMLA: multi-scale ReLU linear attention, at a cost linear in the number of cells."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        inner, heads = 3 * channels, channels // _HEAD
        self.qkv = ConvLayer(channels, inner, norm=False, act=False)
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(inner, inner, scale, padding=scale // 2, groups=inner, bias=False),
                    nn.Conv2d(inner, inner, 1, groups=3 * heads, bias=False),
                )
            ]
        )
        self.proj = ConvLayer(2 * channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, *(op(qkv) for op in self.aggreg)], 1)
        qkv = qkv.reshape(batch, -1, 3 * _HEAD, height * width)
        q, k, v = qkv.chunk(3, 2)
        q, k = F.relu(q), F.relu(k)
        v = F.pad(v, (0, 0, 0, 1), value=1.0)  # a row of ones, which becomes the denominator
        out = (v @ k.transpose(-1, -2)) @ q
        out = out[:, :, :-1] / (out[:, :, -1:] + _EPSILON_DIVISION)
        projected: Tensor = self.proj(out.reshape(batch, -1, height, width))
        return projected


class Residual(nn.Module):
    """A block with a shortcut around it."""

    def __init__(self, main: nn.Module, *, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, plus `x` if there is a shortcut."""
        out: Tensor = self.main(x)
        return out + x if self.shortcut else out


class AttentionBlock(nn.Module):
    """EfficientViT's block: context by linear attention, detail by an inverted bottleneck."""

    def __init__(self, channels: int, scale: int, expand: int) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels, scale))
        self.local_module = Residual(MBConv(channels, channels, 1, expand, fewer_norm=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.local_module(self.context_module(x))
        return out


class OpList(nn.Module):
    """Modules in sequence, under the official name ``op_list``."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        """Run the modules one after the other."""
        for module in self.op_list:
            x = module(x)
        return x


class Backbone(nn.Module):
    """EfficientViT's stages, each of which halves the side."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        stages = [OpList(ConvLayer(3, shape.widths[0], 3, 2), *_first_stage(shape))]
        for index in range(1, len(shape.widths)):
            inputs, outputs = shape.widths[index - 1], shape.widths[index]
            kind, expand, fewer = shape.blocks[index], shape.expands[index], shape.fewer_norms[index]
            down = FusedMBConv if kind == "fmb" else MBConv
            blocks: list[nn.Module] = [Residual(down(inputs, outputs, 2, 4 * expand, fewer), shortcut=False)]
            build = _block_factory(kind, outputs, expand, fewer)
            blocks += [build() for _ in range(shape.depths[index])]
            stages.append(OpList(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> the map of every stage, finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _first_stage(shape: EncoderShape) -> list[nn.Module]:
    return [Residual(ResBlock(shape.widths[0])) for _ in range(shape.depths[0])]


def _block_factory(kind: str, channels: int, expand: int, fewer_norm: bool) -> Callable[[], nn.Module]:
    if kind.startswith("att"):
        return lambda: AttentionBlock(channels, int(kind[3:]), expand)
    block = FusedMBConv if kind == "fmb" else MBConv
    return lambda: Residual(block(channels, channels, 1, expand, fewer_norm))


class _Upsample(nn.Module):
    """Bicubic resize to the embedding's grid."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, G, G)."""
        if x.shape[-1] == self.grid:
            return x
        # By a factor, not to a size: a size would make the graph compute the batch
        factor = self.grid / x.shape[-1]
        return F.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=False)


class Neck(nn.Module):
    """SamNeck: resizes the last three stages to one grid, sums and refines them, with SAM's 256 channels."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width = 256
        self.input_ops = nn.ModuleList(
            OpList(ConvLayer(inputs, width, act=False), _Upsample(shape.grid)) for inputs in shape.widths[:-4:-1]
        )
        blocks = (FusedMBConv(width, width, 1, shape.neck_expand, False) for _ in range(shape.neck_depth))
        self.middle = OpList(*(Residual(block) for block in blocks))
        self.output_ops = nn.ModuleList([OpList(ConvLayer(width, width, norm=False, act=False, bias=True))])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Take the maps of every stage -> (B, 256, G, G)."""
        first, second, third = (op(x) for op, x in zip(self.input_ops, maps[:-4:-1], strict=True))
        out: Tensor = self.output_ops[0](self.middle(first + second + third))
        return out


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each cell of a (B, C, H, W) map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W). Channels are moved last, so that the graph has one LayerNormalization node."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """Image -> SAM's embedding.

    Parameters
    ----------
    shape : EncoderShape
        One of `ENCODERS`.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.backbone = Backbone(shape)
        self.neck = Neck(shape)
        self.norm = LayerNorm2d(256, eps=EPSILON)

    def forward(self, image: Tensor) -> Tensor:
        """Encode (B, 3, S, S) -> embedding (B, 256, 64, 64)."""
        embedding: Tensor = self.norm(self.neck(self.backbone(image)))
        return embedding
