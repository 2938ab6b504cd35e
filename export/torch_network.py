"""Runs PyTorch modules as a bundle's networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["TorchNetwork"]


class TorchNetwork:
    """A module with the interface of `samg_fast.backends.Network`.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    outputs : tuple of str
        Names of its outputs.
    """

    def __init__(self, module: nn.Module, outputs: tuple[str, ...]) -> None:
        self.module, self.outputs = module, outputs

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the module on arrays by input name; return arrays by output name."""
        with torch.inference_mode():
            found = self.module(**{name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in inputs.items()})
        arrays = (each.numpy() for each in (found if isinstance(found, tuple) else (found,)))
        return dict(zip(self.outputs, arrays, strict=True))
