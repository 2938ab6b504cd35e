"""Bundles that have a name: those shipped with the package, and those exported from official models."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from samg_fast.bundle.manifest import MANIFEST
from samg_fast.errors import BundleError
from samg_fast.files import cache_folder

__all__ = ["BUNDLES", "BundleInfo", "bundles", "exported_folder", "official_models", "resolve"]

BUNDLES = Path(__file__).parent
"""The folder of the shipped bundles, beside the code that reads them."""

_OFFICIAL = re.compile(r"(l0|l1|l2|xl0|xl1)-(vit[sblg]14(?:-reg)?)")


@dataclass(frozen=True)
class BundleInfo:
    """A bundle that has a name.

    Parameters
    ----------
    name : str
        The name that `samg_fast.load` accepts.
    description : str
        One-line description.
    path : pathlib.Path
        Its folder.
    fitted : bool
        Whether it finds one target alone, and needs none.
    """

    name: str
    description: str
    path: Path
    fitted: bool = False

    @property
    def shipped(self) -> bool:
        """Whether it is inside the package."""
        return self.path.parent == BUNDLES


def exported_folder() -> Path:
    """Return the folder where exported bundles are found by name, whether it exists or not.

    Raises
    ------
    FileError
        There is no place for a cache.
    """
    return cache_folder() / "bundles"


def bundles() -> list[BundleInfo]:
    """Return the named bundles on this machine: the shipped ones, fitted ones last, then the exported ones."""
    shipped = [_info(manifest) for manifest in sorted(BUNDLES.glob(f"*/{MANIFEST}"))]
    return [*sorted(shipped, key=lambda info: info.fitted), *(_info(manifest) for manifest in _exported())]


def official_models(name: str) -> tuple[str, str] | None:
    """Return the two official models that a name such as l0-vits14 stands for, or None for other names."""
    found = _OFFICIAL.fullmatch(name)
    return None if found is None else (found[1], found[2])


def resolve(bundle: str | os.PathLike[str]) -> Path:
    """Return the folder of a bundle.

    Parameters
    ----------
    bundle : str or os.PathLike
        The name of a shipped or exported bundle, or the path of a folder. A name takes precedence over a folder of the
        same name; write ``./name`` for that folder.

    Raises
    ------
    BundleError
        There is no such bundle; the message lists the known names.
    """
    known = {
        info.name: info.path for info in reversed(bundles())
    }  # a shipped bundle takes precedence over an exported one
    if bundle in known:
        return known[str(bundle)]
    folder = Path(bundle)
    if folder.is_dir():
        return folder
    official = official_models(str(bundle))
    if official is not None:
        sam, dino = official
        raise BundleError(
            f"bundle {bundle} is not shipped: it is made from official checkpoints; run: samg-fast pull "
            f"efficientvit-sam-{sam} dinov2-{dino} && samg-fast export --sam {sam} --dino {dino}, or give the "
            "folder it was exported to"
        )
    here = ", ".join(reversed(known)) or "none in this checkout"
    raise BundleError(f"there is no bundle {str(bundle)!r}: it is no folder, and the bundles here are {here}")


def _exported() -> list[Path]:
    """List the manifests of exported bundles; none where there is no cache, or one that may not be read."""
    try:
        return sorted(exported_folder().glob(f"*/{MANIFEST}"))
    except OSError:  # FileError too; doctor says why
        return []


def _info(manifest: Path) -> BundleInfo:
    """Read what is listed of a bundle, or why it cannot be read; opening the bundle reports all other problems."""
    folder = manifest.parent
    try:
        fields = json.loads(manifest.read_bytes())
        return BundleInfo(folder.name, str(fields["description"]), folder, "network" in fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return BundleInfo(folder.name, f"its {MANIFEST} cannot be read: {error}", folder)
