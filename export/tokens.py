"""The prompt decoder in the form that is exported: the image stays a sequence of cells through all layers.

SAM switches between sequences, for its transformer, and maps, for the transposed convolutions that enlarge the result.
Their kernels are as large as their strides, so each equals a linear layer on cells. As linear layers they need no
change of layout, except of the embedding; on a CPU such a change takes as long as many a product.

The strided convolutions that read the mask input could be converted too, but are not: the layer norm after them is over
only four channels, and would enlarge the rounding differences of another summation order a hundredfold.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sam import EMPTY_SLOT, GRID, HIDDEN, PromptDecoder

__all__ = ["TokenDecoder"]


class TokenDecoder(nn.Module):
    """`PromptDecoder`, with the same inputs and, to float32 rounding, the same outputs.

    Parameters
    ----------
    decoder : PromptDecoder
        With its weights.
    """

    image_pe: Tensor
    no_mask: Tensor
    own_tokens: Tensor

    def __init__(self, decoder: PromptDecoder) -> None:
        super().__init__()
        prompt, mask = decoder.prompt_encoder, decoder.mask_decoder
        self.prompt_encoder, self.transformer = prompt, mask.transformer
        self.hypernetworks, self.quality = mask.output_hypernetworks_mlps, mask.iou_prediction_head
        *reading, last = prompt.mask_downscaling
        self.reading, self.last = nn.Sequential(*reading), _pointwise(last)
        larger, norm3, _, largest, _ = mask.output_upscaling
        self.up1, self.norm3, self.up2 = _enlarging(larger), _channels_last(norm3), _enlarging(largest)
        own = torch.cat([mask.iou_token.weight, mask.mask_tokens.weight])
        self.register_buffer("own_tokens", own.detach())
        self.register_buffer("no_mask", prompt.no_mask_embed.weight.detach())
        self.register_buffer("image_pe", decoder.image_pe.flatten(2).transpose(1, 2).contiguous())

    def forward(
        self, embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode one set of prompts per image; see `PromptDecoder.forward`."""
        has = has_mask_input.reshape(-1, 1, 1)
        image = embedding.flatten(2).transpose(1, 2) + (self._read(mask_input) * has + self.no_mask * (1 - has))
        sparse = self.prompt_encoder.sparse(point_coords, point_labels)
        count = self.own_tokens.shape[0]
        # Padding and adding, instead of expanding and concatenating, needs no node that computes the batch
        tokens = F.pad(sparse, (0, 0, count, 0)) + F.pad(self.own_tokens, (0, 0, 0, sparse.shape[1]))
        empty = (point_labels == EMPTY_SLOT).to(embedding.dtype) * HIDDEN
        bias = F.pad(empty, (count, 0))[:, None, None, :]
        tokens, image = self.transformer(image, self.image_pe, tokens, bias)
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.hypernetworks)], 2)
        return self._write(image, weights), self.quality(tokens[:, 0])

    def _read(self, mask: Tensor) -> Tensor:
        """(B, 1, 4G, 4G) logits -> (B, G * G, 256)."""
        out: Tensor = self.last(self.reading(mask).flatten(2).transpose(1, 2))
        return out

    def _write(self, image: Tensor, weights: Tensor) -> Tensor:
        """(B, G * G, 256) cells and (B, 32, 4) weights -> (B, 4, 4G, 4G) logits."""
        masks = weights.shape[-1]
        x = self.up1(image).reshape(-1, 4 * GRID * GRID, self.up1.out_features // 4)
        x = F.gelu(self.up2(F.gelu(self.norm3(x)))).reshape(-1, 16 * GRID * GRID, self.up2.out_features // 4)
        logits = x @ weights
        half = 2 * GRID
        rows = logits.reshape(-1, GRID, GRID, 2, 2, 4 * masks).permute(0, 1, 3, 2, 4, 5)
        rows = rows.reshape(-1, half, half, 2, 2, masks).permute(0, 5, 1, 3, 2, 4)
        return rows.reshape(-1, masks, 2 * half, 2 * half)


def _pointwise(conv: nn.Module) -> nn.Linear:
    """Return a 1x1 convolution as a linear layer."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.kernel_size == (1, 1)
    return _linear(conv.weight.flatten(1), conv.bias)


def _enlarging(conv: nn.Module) -> nn.Linear:
    """Return a transposed convolution, whose kernel equals its stride, as a linear layer to (row, column, channel)."""
    assert isinstance(conv, nn.ConvTranspose2d)
    assert conv.kernel_size == conv.stride
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    bias = conv.bias
    return _linear(weight, None if bias is None else bias.repeat(weight.shape[0] // len(bias)))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return layer


def _channels_last(norm: nn.Module) -> nn.LayerNorm:
    """Return a layer norm over channels as one for cells with channels last."""
    assert isinstance(norm, nn.LayerNorm)
    layer = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    layer.weight, layer.bias = norm.weight, norm.bias
    return layer
