"""The network of a fitted bundle: a small U-Net (Ronneberger et al., 2015), from the image to one target's mask.

It is drawn for a processor that sees one frame at a time: few, dense convolutions; space to depth at its entry and back
at its end, so that nothing runs at full size; and odd sizes at every level, so that the network's side can be the
frames' own and no pixel is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FittedNet", "Shape"]


@dataclass(frozen=True)
class Shape:
    """Sizes of the network.

    Attributes
    ----------
    side : int
        Side of its input and of its mask in pixels, an even number.
    widths : tuple of 4 int
        Channels at a half, a quarter, an eighth and a sixteenth of the side.
    depths : tuple of 4 int
        Residual convolutions at each on the way down; on the way up there is one each.
    """

    side: int = 84
    widths: tuple[int, int, int, int] = (16, 32, 64, 64)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, activation: bool = True) -> nn.Sequential:
    """Convolution, batch norm, optional ReLU."""
    padding = (kernel - stride + 1) // 2 if kernel > stride else 0
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activation else []))


class _Residual(nn.Module):
    """A 3×3 convolution with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _conv(channels, channels, 3, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class FittedNet(nn.Module):
    """Image → logits of the mask, and the mask's predicted IoU, which is 0 where the target is absent."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths = shape.widths
        first = _conv(3, widths[0], 4, 2)
        down = [first, *(_conv(a, b, 3, 2) for a, b in pairwise(widths))]
        self.down = nn.ModuleList(
            nn.Sequential(conv, *(_Residual(width) for _ in range(depth)))
            for conv, width, depth in zip(down, widths, shape.depths, strict=True)
        )
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.narrow = nn.ModuleList(_conv(a, b, 1, activation=False) for a, b in pairs)
        self.join = nn.ModuleList(_Residual(b) for _, b in pairs)
        self.mask = nn.Conv2d(widths[0], 4, 3, padding=1)  # the four pixels of each place
        self.score = nn.Sequential(nn.Linear(2 * widths[3], 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Segment (B, 3, S, S), normalised → logits (B, 1, S, S), score (B, 1)."""
        seen, x = [], image
        for stage in self.down:
            x = stage(x)
            seen.append(x)
        deepest = seen.pop()
        whole = deepest.shape[2]
        summary = torch.cat([F.avg_pool2d(deepest, whole), F.max_pool2d(deepest, whole)], 1).flatten(1)
        for narrow, join in zip(self.narrow, self.join, strict=True):
            skip = seen.pop()
            side = skip.shape[2]
            wide = F.interpolate(narrow(x), scale_factor=2.0, mode="nearest")[:, :, :side, :side]
            x = join(F.relu(skip + wide))
        return F.pixel_shuffle(self.mask(x), 2), self.score(summary).sigmoid()
