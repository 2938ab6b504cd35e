"""Photographs and paintings for backgrounds: out of Debian's wallpaper packages and of installed Python packages.

Nothing of them is part of this project: a recipe downloads what it finds by the packages' names, and works with fewer,
or with none. Their licences are in ``docs/tiny.md``.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samg_fast.envs.backgrounds import VideoClip
from samg_fast.files import replacing

logger = logging.getLogger(__name__)

DEBIAN_PACKAGES = (
    "gnome-backgrounds", "mate-backgrounds", "plasma-workspace-wallpapers", "ukui-wallpapers",
    "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "sway-backgrounds", "gcompris-qt-data", "tuxpaint-data",
    "trigger-rally-data", "extremetuxracer-data", "neverball-data", "supertuxkart-data", "warzone2100-data",
)  # fmt: skip
"""Debian packages with photographs, paintings and textures."""

PYTHON_PACKAGES = ("skimage", "sklearn", "matplotlib")
"""Python packages with images in them; those that are installed are used."""

_MOST = 150
"""Images taken of one package, so that none of them decides what a background is."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SMALLEST, _SIDE = 200, 320  # pixels: smaller images are left out, larger ones reduced


def fetch_photos(folder: Path) -> list[VideoClip]:
    """Return every different photograph there is, as clips of one image; ``folder`` keeps them for the next time.

    Parameters
    ----------
    folder : path
        Where the reduced images go, as PNG.

    Returns
    -------
    list of VideoClip
        In an order that depends on the images alone. Empty where nothing could be had.
    """
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        packages = folder / "packages"
        packages.mkdir(parents=True)
        roots = [root for name in DEBIAN_PACKAGES if (root := _unpacked(name, packages)) is not None]
        roots += [root for name in PYTHON_PACKAGES if (root := _installed(name)) is not None]
        images = (image for root in roots for image in islice(_different(_images(root)), _MOST))
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / f"photo-{index:04d}.png")
        shutil.rmtree(packages)
        with replacing(done) as temporary:
            temporary.write_text("")
    names = sorted(folder.glob("photo-*.png"))
    return [VideoClip(path.stem, np.asarray(Image.open(path).convert("RGB"))[None]) for path in names]


def _unpacked(name: str, folder: Path) -> Path | None:
    """Download a Debian package and unpack it; None where that is not possible."""
    where = folder / name
    where.mkdir()
    try:
        subprocess.run(["apt-get", "download", name], cwd=where, check=True, capture_output=True, timeout=600)
        (package,) = where.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, where], check=True, capture_output=True, timeout=600)
        package.unlink()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("the photographs of %s are left out (%s)", name, type(error).__name__)
        return None
    return where


def _installed(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin else None


def _images(root: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the images under a folder, the largest files first, reduced to a short side of 320 pixels."""
    files = [path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    for path in sorted(files, key=lambda path: (-path.stat().st_size, str(path))):
        try:
            with Image.open(path) as image:
                transparent = "A" in image.getbands() or "transparency" in image.info
                if min(image.size) < _SMALLEST or transparent:
                    continue
                image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
                ratio = min(1.0, _SIDE / min(image.size))
                size = (round(image.width * ratio), round(image.height * ratio))
                yield np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            logger.info("%s cannot be read (%s)", path.name, error)


def _different(images: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Leave out images that repeat an earlier one in another size, and those of nearly one colour."""
    seen: list[NDArray[np.float32]] = []
    for image in images:
        small = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BOX), np.float32).ravel()
        if image.std() < 12 or any(float(np.abs(small - other).mean()) < 6 for other in seen):
            continue
        seen.append(small)
        yield image
