"""Segment Anything's prompt encoder and mask decoder, as one graph for every decode of SAM-G.

Kirillov et al., arXiv 2304.02643. Modules and parameter names are those of segment-anything, which EfficientViT-SAM
uses.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .efficientvit import ENCODERS, EPSILON, EncoderShape, ImageEncoder, LayerNorm2d

__all__ = ["CHANNELS", "GRID", "PROMPT_SIDE", "EfficientViTSam", "MaskDecoder", "PromptDecoder", "PromptEncoder"]

GRID = 64
"""Side of the embedding's grid."""

PROMPT_SIDE = 1024
"""Side of the prompt frame: the coordinates of points and boxes."""

CHANNELS = 256
"""Channels of the embedding and of the tokens."""

EMPTY_SLOT, NOT_A_POINT, NEGATIVE, POSITIVE, BOX_FIRST, BOX_SECOND = -2, -1, 0, 1, 2, 3

HIDDEN = -1e4  # added to the attention logits of an empty slot: its exponential is 0, yet half precision can hold it


class PositionEncoding(nn.Module):
    """Random Fourier features of a position."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, CHANNELS // 2))

    def forward(self, where: Tensor) -> Tensor:
        """(..., 2) coordinates (x, y) in 0..1 -> (..., 256)."""
        angle = 2 * math.pi * ((2 * where - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angle.sin(), angle.cos()], -1)

    def grid(self) -> Tensor:
        """Return the encoding of the centre of every cell of the embedding, (1, 256, G, G)."""
        matrix = self.positional_encoding_gaussian_matrix
        centre = (torch.arange(GRID, device=matrix.device, dtype=matrix.dtype) + 0.5) / GRID
        rows, columns = torch.meshgrid(centre, centre, indexing="ij")
        encoding: Tensor = self(torch.stack([columns, rows], -1))
        return encoding.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Points, box corners and a mask -> sparse and dense embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = PositionEncoding()
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, CHANNELS) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, CHANNELS)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2),
            LayerNorm2d(4, eps=EPSILON),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, 2),
            LayerNorm2d(16, eps=EPSILON),
            nn.GELU(),
            nn.Conv2d(16, CHANNELS, 1),
        )
        self.no_mask_embed = nn.Embedding(1, CHANNELS)

    def sparse(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Embed (B, N, 2) coordinates in the prompt frame with (B, N) labels -> (B, N, 256)."""
        position: Tensor = self.pe_layer((coords + 0.5) / PROMPT_SIDE) * (labels >= 0).to(coords.dtype)[..., None]
        rows = torch.cat([each.weight for each in (self.not_a_point_embed, *self.point_embeddings)])
        kinds = torch.arange(NOT_A_POINT, BOX_SECOND + 1, device=labels.device, dtype=labels.dtype)
        chosen = (labels[..., None] == kinds).to(coords.dtype)  # an empty slot is none of these
        return position + chosen @ rows

    def dense(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Embed (B, 1, 4G, 4G) logits where `has_mask_input` (B,) is 1, "no mask" where it is 0 -> (B, 256, G, G)."""
        has = has_mask_input.reshape(-1, 1, 1, 1)
        no_mask = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masked: Tensor = self.mask_downscaling(mask_input)
        blended: Tensor = masked * has + no_mask * (1 - has)
        return blended


class Attention(nn.Module):
    """Multi-head attention; `reduce` 2 halves its channels, as between tokens and image."""

    def __init__(self, reduce: int = 1, heads: int = 8) -> None:
        super().__init__()
        inner = CHANNELS // reduce
        self.heads, self.width = heads, inner // heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(CHANNELS, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, CHANNELS)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend with (B, n, 256) queries to (B, m, 256) keys; `bias` (B, 1, 1, m) is added to the logits."""
        q, k, v = self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        logits = (q @ k.transpose(-1, -2)) / math.sqrt(self.width)
        if bias is not None:
            logits = logits + bias
        out: Tensor = self.out_proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, self.width))
        return heads.transpose(1, 2)


class MLPBlock(nn.Module):
    """Two linear layers with a ReLU between."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(CHANNELS, hidden), nn.Linear(hidden, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., 256) -> (..., 256)."""
        out: Tensor = self.lin2(self.lin1(x).relu())
        return out


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(CHANNELS, eps=EPSILON)


class TwoWayBlock(nn.Module):
    """Tokens attend to tokens, then to the image; then the image attends to the tokens."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention()
        self.norm1 = _norm()
        self.cross_attn_token_to_image = Attention(2)
        self.norm2 = _norm()
        self.mlp = MLPBlock(2048)
        self.norm3 = _norm()
        self.norm4 = _norm()
        self.cross_attn_image_to_token = Attention(2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (B, n, 256) and image (B, G * G, 256), each with its positions; `bias` hides empty slots."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, bias)
        else:
            q = tokens + token_pe
            tokens = tokens + self.self_attn(q, q, tokens, bias)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        back = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens, bias)
        return tokens, self.norm4(image + back)


class TwoWayTransformer(nn.Module):
    """Two two-way blocks, then a last attention from the tokens to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(first=index == 0) for index in range(2))
        self.final_attn_token_to_image = Attention(2)
        self.norm_final_attn = _norm()

    def forward(self, image: Tensor, image_pe: Tensor, token_pe: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, G * G, 256) and tokens (B, n, 256) -> updated tokens and image."""
        tokens = token_pe
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, bias)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class MLP(nn.Module):
    """Three linear layers with ReLUs between."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        sizes = (CHANNELS, CHANNELS, CHANNELS, outputs)
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """(..., 256) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        out: Tensor = self.layers[-1](x)
        return out


class MaskDecoder(nn.Module):
    """Embedding and prompt embeddings -> four masks and their predicted IoU."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, CHANNELS)
        self.mask_tokens = nn.Embedding(4, CHANNELS)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(CHANNELS, 64, 2, 2),
            LayerNorm2d(64, eps=EPSILON),
            nn.GELU(),
            nn.ConvTranspose2d(64, 32, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(32) for _ in range(4))
        self.iou_prediction_head = MLP(4)

    def forward(self, source: Tensor, image_pe: Tensor, sparse: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Decode.

        Parameters
        ----------
        source : (B, 256, G, G)
            Embedding plus dense prompt.
        image_pe : (1, 256, G, G)
        sparse : (B, N, 256)
        empty : (B, N)
            Added to the attention logits of each slot: 0, or `HIDDEN` if the slot is empty.

        Returns
        -------
        low_res_masks : (B, 4, 4G, 4G)
        iou : (B, 4)
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        # Padding and adding, instead of expanding and concatenating, needs no node that computes the batch
        tokens = F.pad(sparse, (0, 0, 5, 0)) + F.pad(own, (0, 0, 0, sparse.shape[1]))
        bias = F.pad(empty, (5, 0))[:, None, None, :]
        image, pe = source.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, pe, tokens, bias)
        pixels = self.output_upscaling(image.transpose(1, 2).unflatten(2, (GRID, GRID)))
        weights = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        masks = (weights @ pixels.flatten(2)).unflatten(2, (4 * GRID, 4 * GRID))
        return masks, self.iou_prediction_head(tokens[:, 0])


class EfficientViTSam(nn.Module):
    """EfficientViT-SAM, with every parameter of an official checkpoint.

    Parameters
    ----------
    variant : str
        A key of `samg_fast.export.efficientvit.ENCODERS`.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.shape: EncoderShape = ENCODERS[variant]
        self.image_encoder = ImageEncoder(self.shape)
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()


class PromptDecoder(nn.Module):
    """The graph ``decoder``: a model's prompt encoder and mask decoder, with the grid's positions computed once.

    Parameters
    ----------
    sam : EfficientViTSam
        With its weights: the positions are computed from them here.
    """

    image_pe: Tensor

    def __init__(self, sam: EfficientViTSam) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.register_buffer("image_pe", sam.prompt_encoder.pe_layer.grid().detach())

    def forward(
        self, embedding: Tensor, point_coords: Tensor, point_labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode one set of prompts per image.

        Parameters
        ----------
        embedding : (B, 256, G, G)
        point_coords : (B, N, 2)
            (x, y) in the prompt frame, whose longest side is 1024.
        point_labels : (B, N) float
            1 target, 0 background, 2 and 3 box corners, -1 SAM's "not a point", -2 empty slot.
        mask_input : (B, 1, 4G, 4G)
            Logits of an earlier decode; ignored where `has_mask_input` (B,) is 0.

        Returns
        -------
        low_res_masks : (B, 4, 4G, 4G)
        iou : (B, 4)
        """
        source = embedding + self.prompt_encoder.dense(mask_input, has_mask_input)
        empty = (point_labels == EMPTY_SLOT).to(embedding.dtype) * HIDDEN
        masks: tuple[Tensor, Tensor] = self.mask_decoder(
            source, self.image_pe, self.prompt_encoder.sparse(point_coords, point_labels), empty
        )
        return masks
