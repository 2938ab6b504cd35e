"""Fast SAM-G masked perception for visual reinforcement learning (arXiv 2312.17116).

>>> import samg_fast
>>> segmenter = samg_fast.load("tiny")
>>> target = segmenter.identify(image, mask)
>>> observation = segmenter.segment(frame, target).masked
"""

from importlib import import_module
from typing import TYPE_CHECKING

from samg_fast.bundle.zoo import BundleInfo, bundles
from samg_fast.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    DownloadError,
    FileError,
    FitError,
    InputError,
    InputTypeError,
    MissingExtraError,
    SamgError,
)
from samg_fast.loading import load
from samg_fast.objects import Objects
from samg_fast.pipeline.propose import Proposals
from samg_fast.results import Decode, Segmentation, Trace
from samg_fast.segmenter import Segmenter
from samg_fast.target import Target

__all__ = [
    "BackendError",
    "BundleError",
    "BundleInfo",
    "CheckpointError",
    "Decode",
    "DownloadError",
    "FileError",
    "FitError",
    "InputError",
    "InputTypeError",
    "MissingExtraError",
    "Objects",
    "Proposals",
    "SamgError",
    "Segmentation",
    "Segmenter",
    "Target",
    "Trace",
    "bundles",
    "control",
    "envs",
    "fit",
    "load",
    "wrappers",
]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from samg_fast import control, envs, wrappers
    from samg_fast.fitting import fit
else:
    _ON_DEMAND = ("control", "envs", "wrappers")

    def __getattr__(name: str) -> object:
        """Import these on first use, because their libraries are optional extras."""
        if name in _ON_DEMAND:
            return import_module(f"{__name__}.{name}")
        if name == "fit":
            return import_module(f"{__name__}.fitting").fit
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
