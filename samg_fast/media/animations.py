"""Moving pictures that Pillow decodes: GIF, animated PNG, WebP and AVIF, and TIFF files of several pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

from samg_fast.checks import Frame
from samg_fast.media.images import GREY_MODES, pages, to_rgb

__all__ = ["Animation", "is_animation", "is_moving"]

_UNTIMED = 1 / 25  # seconds of a page of a TIFF: like a video that does not say


class Animation:
    """The pictures of a file that Pillow reads.

    Parameters
    ----------
    path : pathlib.Path

    Attributes
    ----------
    fps : float
        Frames per second of the first frame.
    count : int
        Number of frames.
    start : float
        0: these files have no clock of their own.
    grey : str
        The name of the pixel format if it has no colours, else empty.
    left_out : int
        0: every picture can be shown.
    """

    errors: tuple[type[Exception], ...] = (Exception,)  # Pillow's decoders raise anything on files cut or altered
    start = 0.0
    left_out = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        with Image.open(path) as image:
            self._pages = pages(image)
            image.seek(self._pages[0])
            image.load()
            self.fps = 1 / _seconds(image)
            self.count = len(self._pages)
            self.grey = image.mode if image.mode in GREY_MODES else ""

    def __iter__(self) -> Iterator[tuple[Frame, float, float]]:
        """Yield every frame, (H, W, 3) uint8, its time and how long it is shown, in seconds."""
        time = 0.0
        with Image.open(self._path) as image:
            for page in self._pages:
                image.seek(page)
                image.load()  # WebP and AVIF say only then how long a picture is shown
                duration = _seconds(image)
                yield to_rgb(ImageOps.exif_transpose(image), self._path, grey=True), time, duration
                time += duration


def is_animation(path: Path) -> bool:
    """Return whether a file is of a kind that `Animation` reads, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(12)
    return (
        start.startswith((b"GIF8", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
        or (start.startswith(b"RIFF") and start[8:] == b"WEBP")
        or start[4:] in (b"ftypavif", b"ftypavis")
    )


def is_moving(path: Path) -> bool:
    """Return whether an image file holds several pictures; False also where it cannot be read."""
    try:
        if not is_animation(path):
            return False
        with Image.open(path) as image:
            return len(pages(image)) > 1
    except Exception:  # whoever reads it says what is wrong
        return False


def _seconds(image: Image.Image) -> float:
    """Return how long the present picture is shown; as browsers do, too short a time becomes a tenth of a second."""
    milliseconds = image.info.get("duration")
    if milliseconds is None and image.format == "TIFF":
        return _UNTIMED
    return float(milliseconds) / 1e3 if milliseconds and milliseconds >= 20 else 0.1
