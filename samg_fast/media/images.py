"""Image files: read as the arrays the segmenter takes, written whole or not at all."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from samg_fast.checks import Frame, Mask
from samg_fast.errors import FileError
from samg_fast.files import replacing

__all__ = ["GREY_MODES", "IMAGE_SUFFIXES", "open_image", "pages", "read_image", "to_rgb", "write_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Modes with 8 bits per channel. 16-bit and float images have no agreed range: Pillow would clip.
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})

GREY_MODES = frozenset({"1", "L", "LA"})

# Formats whose pictures follow each other. Those of a JPEG from a telephone are one picture and its small copies.
_MOVING_FORMATS = frozenset({"GIF", "PNG", "WEBP", "AVIF", "TIFF"})

_SUBFILE_TYPE = 254  # of a TIFF: 1 for a small copy of another page


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
        The file is missing, is no image, holds several, is cut short, is grey, or holds more than 8 bits per channel.
    """
    return to_rgb(open_image(path), path)


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


def open_image(path: str | os.PathLike[str], modes: frozenset[str] = EIGHT_BIT_MODES) -> Image.Image:
    """Open and decode an image file, turned the way the camera was held.

    Parameters
    ----------
    path : str or os.PathLike
    modes : frozenset of str
        Pillow's names of the pixel formats that are taken.

    Returns
    -------
    PIL.Image.Image
        With the file's format in `format`.

    Raises
    ------
    FileError
        The file is missing, is no image, holds several, is cut short, or has other pixels.
    """
    try:
        with Image.open(path) as opened:
            if opened.mode not in modes:
                raise FileError(f"cannot use {path}: its pixels are {opened.mode}, expected 8 bits per channel")
            if (count := len(pages(opened))) > 1:
                raise FileError(
                    f"cannot use {path} as a picture: it holds {count} of them, expected one; "
                    "`samg-fast segment` takes it as a video"
                )
            image = ImageOps.exif_transpose(opened)
            image.format = opened.format
            return image
    except UnidentifiedImageError as error:
        raise FileError(f"cannot read {path}: it is not a picture") from error
    except FileError:
        raise
    # Pillow's decoders raise SyntaxError, ValueError and struct.error as well as OSError on files cut or altered.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileError(f"cannot read {path}: {reason}") from error


def to_rgb(image: Image.Image, path: str | os.PathLike[str], *, grey: bool = False) -> Frame:
    """Return the pixels of an opened image as (H, W, 3) uint8, without alpha.

    Parameters
    ----------
    image : PIL.Image.Image
    path : str or os.PathLike
        Where it comes from, for messages.
    grey : bool
        Whether images without colours are taken.

    Raises
    ------
    FileError
        The image is grey and that is not taken, or has more than 8 bits per channel.
    """
    if image.mode not in EIGHT_BIT_MODES:
        raise FileError(f"cannot use {path}: its pixels are {image.mode}, expected 8 bits per channel")
    if image.mode in GREY_MODES and not grey:  # as the segmenter refuses grey arrays: targets are known by their colour
        raise FileError(f"cannot use {path}: it is a grey picture (mode {image.mode}), expected RGB")
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns of it where alpha is dropped at once
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def pages(image: Image.Image) -> list[int]:
    """Return the numbers of an opened file's pictures, without small copies and what only stands in for an animation.

    Pages of a TIFF that are not of the first one's size are taken for copies too.
    """
    count: int = getattr(image, "n_frames", 1)
    if count == 1 or image.format not in _MOVING_FORMATS:
        return [0]
    if image.format == "PNG" and getattr(image, "default_image", False):
        return list(range(1, count)) if count > 2 else [0]
    if image.format != "TIFF":
        return list(range(count))
    found, size = [], image.size
    for page in range(count):
        image.seek(page)
        if image.size == size and not image.tag_v2.get(_SUBFILE_TYPE, 0) & 1:  # type: ignore[attr-defined]
            found.append(page)
    image.seek(0)
    return found or [0]
