"""Images, masks and videos on the disk: read as the arrays the segmenter takes, written whole or not at all."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from samg_fast.checks import Frame, Mask
from samg_fast.errors import FileError
from samg_fast.files import replacing
from samg_fast.media.video import VideoReader

__all__ = ["IMAGE_SUFFIXES", "Frames", "frames_in", "read_image", "read_mask", "write_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Modes with 8 bits per channel. 16-bit and float images have no agreed range: Pillow would clip.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})

_GREY_MODES = frozenset({"1", "L", "LA"})


def read_image(path: str | os.PathLike[str]) -> Frame:
    """Read an image file as RGB.

    Palette and CMYK files are converted, an alpha channel is dropped, and the orientation noted by a camera is applied.

    Parameters
    ----------
    path : str or os.PathLike
        An image with 8 bits per channel, in any format Pillow reads.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    FileError
        The file is missing, is no image, is cut short, is grey, or holds more than 8 bits per channel.
    """
    image = _open_image(path)
    if image.mode in _GREY_MODES:  # as the segmenter refuses grey arrays: the networks know targets by their colour
        raise FileError(f"cannot use {path}: it is a grey picture (mode {image.mode}), expected RGB")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_mask(path: str | os.PathLike[str]) -> Mask:
    """Read a mask file: the pixels brighter than half of its brightest pixel.

    So masks of 0 and 1, of 0 and 255, and those a lossy format has smeared read alike. A black image is an empty
    mask.

    Parameters
    ----------
    path : str or os.PathLike
        An image with 8 bits per channel, in any format Pillow reads.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FileError
        The file is missing, is no image, is cut short, or holds more than 8 bits per channel.
    """
    image = _open_image(path)
    # A palette's indices are the labels a drawing program wrote; its colours may be anything.
    values = np.asarray(image if image.mode == "P" else image.convert("L"), dtype=np.float32)
    brightest: np.float32 = values.max(initial=0)
    return np.asarray(values * 2 > brightest)


def write_image(path: str | os.PathLike[str], image: Frame | Mask) -> None:
    """Write an image or a mask in the format its suffix names.

    Parameters
    ----------
    path : str or os.PathLike
        The file to make or replace; its folder must exist.
    image : (H, W, 3) uint8, (H, W) uint8 or (H, W) bool
        RGB, grey, or a mask, which is written as 0 and 255.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    pixels = np.where(image, 255, 0).astype(np.uint8) if image.dtype == np.bool_ else image
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open and decode an image file, turned the way the camera was held."""
    try:
        with Image.open(path) as opened:
            if opened.mode not in _EIGHT_BIT_MODES:
                raise FileError(f"cannot use {path}: its pixels are {opened.mode}, expected 8 bits per channel")
            return ImageOps.exif_transpose(opened)
    except UnidentifiedImageError as error:
        raise FileError(f"cannot read {path}: it is not a picture") from error
    except FileError:
        raise
    # Pillow's decoders raise SyntaxError, ValueError and struct.error as well as OSError on files cut or altered.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileError(f"cannot read {path}: {reason}") from error


@dataclass(frozen=True)
class Frames:
    """The frames of an image, a folder of images or a video, one at a time.

    Attributes
    ----------
    path : pathlib.Path
    kind : str
        "image", "folder" or "video".
    count : int or None
        How many there are; None where a video does not say.
    fps : float or None
        Frames per second of a video, else None.
    """

    path: Path
    kind: Literal["image", "folder", "video"]
    count: int | None
    fps: float | None
    _source: VideoReader | tuple[tuple[str, Path], ...]

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """Yield a name fit for a file, different for every frame, and the frame, (H, W, 3) uint8.

        Raises
        ------
        FileError
            A frame cannot be read.
        """
        if isinstance(self._source, VideoReader):
            for number, frame in enumerate(self._source):
                yield f"{number:06d}", frame
        else:
            for name, path in self._source:
                yield name, read_image(path)


def frames_in(path: str | os.PathLike[str]) -> Frames:
    """Open an image, a folder of images or a video.

    The images of a folder come in the order of their names, numbers in them taken as numbers (2 before 10).

    Parameters
    ----------
    path : str or os.PathLike
        A folder; a file with one of `IMAGE_SUFFIXES`; or else a video.

    Returns
    -------
    Frames

    Raises
    ------
    FileError
        There is nothing at `path`, the folder has no image, or the file is no video.
    """
    path = Path(path)
    if path.is_dir():
        images = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
        if not images:
            raise FileError(f"cannot use {path}: the folder holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))})")
        stems = Counter(image.stem for image in images)
        # a.png and a.jpg must not both become a.png
        named = tuple(
            (image.stem if stems[image.stem] == 1 else image.name, image) for image in sorted(images, key=_natural)
        )
        return Frames(path, "folder", len(named), None, named)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if not path.exists():
            raise FileError(f"cannot read {path}: no such file")
        return Frames(path, "image", 1, None, ((path.stem, path),))
    video = VideoReader(path)
    return Frames(path, "video", video.count, video.fps, video)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that takes runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
