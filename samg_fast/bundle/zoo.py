"""Which bundles have a name: those shipped in the package, and official ones, which are exported first."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from samg_fast.bundle.manifest import MANIFEST
from samg_fast.errors import BundleError
from samg_fast.files import cache_folder

__all__ = ["BUNDLES", "BundleInfo", "bundles", "exported_folder", "resolve"]

BUNDLES = Path(__file__).parent
"""The folder of the shipped bundles: data beside the code that reads it."""

_ENCODERS = ("l0", "l1", "l2", "xl0", "xl1")
_FEATURES = {
    f"{name}{suffix}": f"{vit}{words}"
    for suffix, words in (("", ""), ("-reg", " with registers"))
    for name, vit in {"vits14": "ViT-S/14", "vitb14": "ViT-B/14", "vitl14": "ViT-L/14", "vitg14": "ViT-g/14"}.items()
}


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
        Its folder; None if it is neither shipped nor exported yet.
    """

    name: str
    description: str
    path: Path | None

    @property
    def shipped(self) -> bool:
        """Whether it is inside the package."""
        return self.path is not None and self.path.parent == BUNDLES


def exported_folder() -> Path:
    """Return the folder where exported bundles are found by name, whether it exists or not."""
    return cache_folder() / "bundles"


def bundles() -> list[BundleInfo]:
    """List the bundles that have a name: shipped ones, exported ones, then what official models can be made into."""
    here = [
        BundleInfo(manifest.parent.name, _description(manifest), manifest.parent)
        for folder in (BUNDLES, exported_folder())
        for manifest in sorted(folder.glob(f"*/{MANIFEST}"))
    ]
    names = {info.name for info in here}
    official = [
        BundleInfo(
            f"{encoder}-{features}",
            f"EfficientViT-SAM-{encoder.upper()} and DINOv2 {vit}; not shipped: made from official checkpoints",
            None,
        )
        for encoder in _ENCODERS
        for features, vit in _FEATURES.items()
    ]
    return here + [info for info in official if info.name not in names]


def resolve(bundle: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle.

    Parameters
    ----------
    bundle : str or os.PathLike
        The name of a shipped or exported bundle, or the path of a folder. A name wins over a folder of the same name;
        write ``./name`` for that folder.

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
        sam, _, dino = str(bundle).partition("-")
        raise BundleError(
            f"bundle {bundle} is not shipped: it is made from official checkpoints; run: samg-fast pull "
            f"efficientvit-sam-{sam} dinov2-{dino} && samg-fast export --sam {sam} --dino {dino}, or give the "
            "folder it was exported to"
        )
    here = ", ".join(info.name for info in known if info.path is not None) or "none in this checkout"
    raise BundleError(f"there is no bundle {str(bundle)!r}: it is no folder, and the bundles here are {here}")


def _description(manifest: Path) -> str:
    """Read a manifest's description; loading the bundle will say what is wrong with one that cannot be read."""
    try:
        return str(json.loads(manifest.read_bytes())["description"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
