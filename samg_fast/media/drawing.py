"""Images one can look at: masks over frames, heat maps, points, and sheets of them with labels.

Everything takes and returns (H, W, 3) uint8 RGB. Small frames are enlarged without smoothing, so that a pixel of the
frame stays a square one can count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from samg_fast.checks import Frame, Mask
from samg_fast.errors import InputError

__all__ = [
    "Row",
    "contact_sheet",
    "draw_points",
    "enlarge",
    "heat_map",
    "overlay",
    "overlay_ids",
    "side_by_side",
    "watchable",
]

Colour = tuple[int, int, int]

MASK: Colour = (255, 48, 224)
OBJECTS: tuple[Colour, ...] = (MASK, (48, 160, 255), (255, 200, 40), (64, 224, 128), (255, 112, 48), (160, 112, 255))
POSITIVE: Colour = (64, 255, 96)
NEGATIVE: Colour = (255, 72, 72)
PAPER: Colour = (24, 24, 28)
INK: Colour = (232, 232, 236)

# Nine samples of matplotlib's "inferno" (CC0): its lightness rises evenly, so that it reads in grey too.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float32,
)


def watchable(height: int, width: int, *, side: int = 336) -> int:
    """Return the factor for `enlarge` that brings a frame's longest side near `side`, at least 1."""
    return max(1, side // max(height, width))


def enlarge(image: Frame | Mask, factor: int) -> Frame:
    """Repeat every pixel `factor` times in both directions.

    Parameters
    ----------
    image : (H, W, 3) uint8, (H, W) uint8 or (H, W) bool
        RGB; or grey or a mask, which become RGB, a mask in black and white.
    factor : int
        At least 1.

    Returns
    -------
    (H · factor, W · factor, 3) uint8
    """
    pixels = np.asarray(np.where(image, 255, 0) if image.dtype == np.bool_ else image, dtype=np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def overlay(frame: Frame, mask: Mask, *, factor: int = 1, colour: Colour = MASK) -> Frame:
    """Draw a mask over a frame: tinted inside, outlined.

    Parameters
    ----------
    frame : (H, W, 3) uint8
    mask : (H, W) bool
    factor : int
        Enlarge by this much first; the outline stays one or two pixels thin.
    colour : (int, int, int)

    Returns
    -------
    (H · factor, W · factor, 3) uint8

    Raises
    ------
    InputError
        `mask` has another size than `frame`.
    """
    if mask.shape != frame.shape[:2]:
        raise InputError(f"mask must have the frame's size {frame.shape[:2]}, got {mask.shape}")
    tinted = frame.copy()
    tinted[mask] = (0.6 * frame[mask] + 0.4 * np.asarray(colour, dtype=np.float32)).astype(np.uint8)
    canvas = enlarge(tinted, factor)
    inside = mask.repeat(factor, axis=0).repeat(factor, axis=1)
    padded = np.pad(inside, 1, mode="edge")
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    canvas[inside & ~surrounded] = colour
    return canvas


def overlay_ids(frame: Frame, ids: Frame, *, factor: int = 1) -> Frame:
    """Draw several objects over a frame, each in a colour of its own.

    Parameters
    ----------
    frame : (H, W, 3) uint8
    ids : (H, W) uint8
        The number of the object at each pixel; 0 for none.
    factor : int
        As in `overlay`.

    Returns
    -------
    (H · factor, W · factor, 3) uint8
    """
    canvas, large = enlarge(frame, factor), ids.repeat(factor, axis=0).repeat(factor, axis=1)
    for number in np.unique(ids[ids > 0]).tolist():
        canvas = overlay(canvas, large == number, colour=OBJECTS[(number - 1) % len(OBJECTS)])
    return canvas


def heat_map(values: ArrayLike, *, low: float | None = None, high: float | None = None) -> Frame:
    """Colour a map from dark (`low`) over red to pale yellow (`high`).

    Parameters
    ----------
    values : (H, W) array_like
        NaN is drawn as `low`.
    low, high : float, optional
        Values at the ends of the colours; by default the smallest and the largest finite one.

    Returns
    -------
    (H, W, 3) uint8
    """
    heights = np.asarray(values, dtype=np.float32)
    finite = heights[np.isfinite(heights)]
    if finite.size == 0:
        finite = np.zeros(1, np.float32)
    low = float(finite.min()) if low is None else low
    high = float(finite.max()) if high is None else high
    reach = high - low if high > low else 1.0
    share = np.nan_to_num((heights - low) / reach, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    stops = np.linspace(0, 1, len(_INFERNO))
    channels = [np.interp(share, stops, _INFERNO[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_points(image: Frame, points: ArrayLike, labels: ArrayLike, *, factor: int = 1) -> Frame:
    """Draw prompt points: green discs where positive, red crosses where negative.

    Parameters
    ----------
    image : (H, W, 3) uint8
        An image enlarged by `factor`.
    points : (n, 2) array_like
        (x, y) in pixels of the frame, before it was enlarged.
    labels : (n,) array_like
        1 positive, anything else negative.
    factor : int

    Returns
    -------
    (H, W, 3) uint8
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    radius = max(2.0, max(image.shape[:2]) / 48)
    places = (np.asarray(points, dtype=np.float64).reshape(-1, 2) + 0.5) * factor
    for (x, y), label in zip(places.tolist(), np.asarray(labels).ravel().tolist(), strict=True):
        if label == 1:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=POSITIVE, outline=(0, 0, 0))
        else:
            for colour, width in (((0, 0, 0), 4), (NEGATIVE, 2)):
                draw.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=width)
                draw.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=width)
    return np.asarray(canvas)


def side_by_side(images: Sequence[Frame], *, caption: str = "", gap: int = 4) -> Frame:
    """Put images into a row, with a line of text below.

    Parameters
    ----------
    images : sequence of (H, W, 3) uint8
        Smaller ones are centred on the height of the tallest.
    caption : str
        Text below; no line where empty.
    gap : int
        Pixels between two images.

    Returns
    -------
    (H', W', 3) uint8
    """
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + gap * (len(images) - 1)
    size = max(12, height // 20)
    canvas = Image.new("RGB", (width, height + (2 * size if caption else 0)), PAPER)
    x = 0
    for image in images:
        canvas.paste(Image.fromarray(image), (x, (height - image.shape[0]) // 2))
        x += image.shape[1] + gap
    if caption:
        _text(ImageDraw.Draw(canvas), (size // 2, height + size), caption, size, "lm")
    return np.asarray(canvas)


@dataclass(frozen=True)
class Row:
    """A row of a contact sheet.

    Attributes
    ----------
    label : str
        Written to the left; may have several lines.
    images : sequence of (H, W, 3) uint8
        One per column.
    notes : sequence of str
        Written below the images; none where shorter.
    """

    label: str
    images: Sequence[Frame]
    notes: Sequence[str] = ()


def contact_sheet(rows: Sequence[Row], headings: Sequence[str] = (), *, gap: int = 6) -> Frame:
    """Lay images out in rows and columns, with headings above, labels at the left and notes below.

    Parameters
    ----------
    rows : sequence of Row
        At least one. Rows may have different numbers of images, and images different sizes: every column is as wide
        as its widest, every row as high as its highest.
    headings : sequence of str
        One per column; may be shorter.
    gap : int
        Pixels around every image.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        There is no image to lay out.
    """
    columns = max((len(row.images) for row in rows), default=0)
    if columns == 0:
        raise InputError("rows must hold at least one picture, got none")
    widths = [max((r.images[c].shape[1] for r in rows if c < len(r.images)), default=0) for c in range(columns)]
    heights = [max((image.shape[0] for image in row.images), default=0) for row in rows]
    size = 13
    line = size + 5
    text = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    label_width = max(int(text.multiline_textbbox((0, 0), row.label, font=_font(size))[2]) for row in rows) + 2 * gap
    lefts = np.cumsum([label_width + gap, *(width + gap for width in widths)]).tolist()
    spaces = [height + gap + (line if row.notes else 0) for row, height in zip(rows, heights, strict=True)]
    tops = np.cumsum([(line if headings else 0) + gap, *spaces]).tolist()

    sheet = Image.new("RGB", (lefts[-1], tops[-1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for heading, left, width in zip(headings, lefts, widths, strict=False):
        _text(draw, (left + width // 2, gap + size // 2), heading, size, "mm")
    for row, top, height in zip(rows, tops, heights, strict=False):
        draw.multiline_text((gap, top), row.label, INK, _font(size))
        for image, left in zip(row.images, lefts, strict=False):
            sheet.paste(Image.fromarray(image), (left, top))
        for note, left, width in zip(row.notes, lefts, widths, strict=False):
            _text(draw, (left + width // 2, top + height + line // 2), note, size, "mm")
    return np.asarray(sheet)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font: no font file is looked for on the machine."""
    return ImageFont.load_default(size)


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], words: str, size: int, anchor: str) -> None:
    draw.text(place, words, INK, _font(size), anchor=anchor)
