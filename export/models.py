"""Loads the official models by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from samg_fast.errors import InputError, InputTypeError

from .checkpoints import load_into, load_state_dict
from .dinov2 import FEATURES, DinoV2
from .efficientvit import ENCODERS
from .sam import EfficientViTSam

__all__ = ["dino_variant", "load_dino", "load_sam", "sam_variant"]

_SAM, _DINO = "efficientvit-sam-", "dinov2-"
_Model = TypeVar("_Model", bound=nn.Module)


def sam_variant(name: str) -> str:
    """Return the key of `ENCODERS` that ``"efficientvit-sam-l0"`` or ``"l0"`` names.

    Raises
    ------
    InputError, InputTypeError
        There is no such model.
    """
    return _variant("sam", name, _SAM, tuple(ENCODERS))


def dino_variant(name: str) -> str:
    """Return the key of `FEATURES` that ``"dinov2-vits14-reg"`` or ``"vits14-reg"`` names.

    Raises
    ------
    InputError, InputTypeError
        There is no such model.
    """
    return _variant("dino", name, _DINO, tuple(FEATURES))


def load_sam(name: str, checkpoint: str | os.PathLike[str]) -> EfficientViTSam:
    """Build an EfficientViT-SAM with the weights of an official checkpoint, in evaluation mode.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this model.
    InputError, InputTypeError
        There is no such model.
    """
    return _load(EfficientViTSam, _SAM, sam_variant(name), checkpoint)


def load_dino(name: str, checkpoint: str | os.PathLike[str]) -> DinoV2:
    """Build a DINOv2 with the weights of an official checkpoint, in evaluation mode.

    Raises
    ------
    CheckpointError
        The file is not a checkpoint of this model.
    InputError, InputTypeError
        There is no such model.
    """
    return _load(DinoV2, _DINO, dino_variant(name), checkpoint)


@lru_cache(maxsize=1)
def known_shapes() -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Return keys and shapes of every model's checkpoint, to recognise which model a checkpoint belongs to."""
    with torch.device("meta"):
        models: dict[str, nn.Module] = {_SAM + each: EfficientViTSam(each) for each in ENCODERS}
        models |= {_DINO + each: DinoV2(each) for each in FEATURES}
    return MappingProxyType(
        {name: {key: tuple(value.shape) for key, value in model.state_dict().items()} for name, model in models.items()}
    )


def _load(build: Callable[[str], _Model], prefix: str, variant: str, checkpoint: str | os.PathLike[str]) -> _Model:
    with torch.device("meta"):
        model = build(variant)
    load_into(model, load_state_dict(checkpoint), name=prefix + variant, path=checkpoint, variants=known_shapes())
    return model.requires_grad_(False).eval()


def _variant(argument: str, name: str, prefix: str, variants: tuple[str, ...]) -> str:
    if not isinstance(name, str):
        raise InputTypeError(f"{argument} must be a name, not {type(name).__name__}")
    variant = name.removeprefix(prefix).replace("_", "-")
    if variant not in variants:
        raise InputError(f"{argument} is {name!r}, expected one of {', '.join(prefix + each for each in variants)}")
    return variant
