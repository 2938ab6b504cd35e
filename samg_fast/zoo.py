"""Which bundles have a name: those shipped in the package, and official ones that must be exported first."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from samg_fast.bundle import MANIFEST
from samg_fast.errors import BundleError

__all__ = ["BUNDLES", "BundleInfo", "bundles", "resolve"]

BUNDLES = Path(__file__).parent / "bundles"
"""The folder of the shipped bundles."""

_ENCODERS = ("l0", "l1", "l2", "xl0", "xl1")
_FEATURES = {"vits14": "ViT-S/14", "vitb14": "ViT-B/14", "vitl14": "ViT-L/14"}


@dataclass(frozen=True)
class BundleInfo:
    """A bundle that has a name.

    Parameters
    ----------
    name : str
        What `samg_fast.load` takes.
    description : str
        A line about it.
    path : pathlib.Path or None
        Its folder; None if it is not shipped.
    """

    name: str
    description: str
    path: Path | None

    @property
    def shipped(self) -> bool:
        """Whether it is inside the package."""
        return self.path is not None


def bundles() -> list[BundleInfo]:
    """List the bundles that have a name: the shipped ones first, then the official configurations."""
    shipped = [BundleInfo(p.parent.name, _description(p), p.parent) for p in sorted(BUNDLES.glob(f"*/{MANIFEST}"))]
    names = {info.name for info in shipped}
    official = [
        BundleInfo(
            f"{encoder}-{features}",
            f"EfficientViT-SAM-{encoder.upper()} and DINOv2 {vit}; not shipped: made from official checkpoints",
            None,
        )
        for encoder in _ENCODERS
        for features, vit in _FEATURES.items()
    ]
    return shipped + [info for info in official if info.name not in names]


def resolve(bundle: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle.

    Parameters
    ----------
    bundle : str or os.PathLike
        The name of a shipped bundle, or the path of a folder. A name wins over a folder of the same name; write
        ``./name`` for that folder.

    Raises
    ------
    BundleError
        There is no such bundle; the message holds the names that exist.
    """
    known = bundles()
    for info in known:
        if info.name == bundle and info.path is not None:
            return info.path
    folder = Path(bundle)
    if folder.is_dir():
        return folder
    if any(info.name == bundle for info in known):
        raise BundleError(
            f"bundle {bundle} is not shipped: it is made from official checkpoints; give the folder it was exported to"
        )
    shipped = ", ".join(info.name for info in known if info.shipped) or "none in this checkout"
    raise BundleError(f"there is no bundle {str(bundle)!r}: it is no folder, and the shipped bundles are {shipped}")


def _description(manifest: Path) -> str:
    """Read a manifest's description; loading the bundle will say what is wrong with one that cannot be read."""
    try:
        return str(json.loads(manifest.read_bytes())["description"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
