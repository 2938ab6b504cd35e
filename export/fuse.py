"""Makes a model faster without changing what it computes, by folding constants into linear layers.

The result differs from the official model by float32 rounding only; `samg_fast.parity` measures the difference.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import dinov2, efficientvit

__all__ = ["fuse"]


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions, layer scales and attention's scale into linear layers, in place.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode. All other modules are unchanged.

    Returns
    -------
    torch.nn.Module
        `model`.
    """
    for module in model.modules():
        if isinstance(module, efficientvit.ConvLayer) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), None
        elif isinstance(module, dinov2.Block):
            last = module.mlp.w3 if isinstance(module.mlp, dinov2.SwiGLU) else module.mlp.fc2
            _scale(module, "ls1", module.attn.proj)
            _scale(module, "ls2", last)
        elif isinstance(module, dinov2.Attention) and not module.scaled:
            width, scale = module.qkv.in_features, (module.qkv.in_features // module.heads) ** -0.5
            module.qkv.weight[:width].mul_(scale)
            module.qkv.bias[:width].mul_(scale)
            module.scaled = True
    return model


def _scale(block: dinov2.Block, name: str, linear: nn.Linear) -> None:
    """Fold a block's layer scale into the linear layer before it."""
    layer_scale = getattr(block, name)
    if isinstance(layer_scale, dinov2.LayerScale):
        linear.weight.mul_(layer_scale.gamma[:, None])
        linear.bias.mul_(layer_scale.gamma)
        setattr(block, name, nn.Identity())
