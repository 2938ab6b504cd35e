"""A table as an image: every figure in a cell of its colour, with the colours' scale beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samg_fast.errors import InputError
from samg_fast.media.drawing import INK, PAPER, heat_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from samg_fast.checks import Frame


__all__ = ["draw"]

# In pixels.
_WIDTH, _HEIGHT = 104, 30
_MARGIN, _TEXT = 14, 15
_BLOCK_GAP, _BAR = 10, 16
_TICKS = 4


def draw(
    title: str,
    columns: Sequence[str],
    blocks: Sequence[Mapping[str, Sequence[float]]],
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> Frame:
    """Draw figures as a heat map.

    Parameters
    ----------
    title : str
        One line above.
    columns : sequence of str
        Headings.
    blocks : sequence of mapping
        Row's name → its figures, one per column; between two blocks there is a gap.
    low, high : float
        Values at the ends of the colours. They are fixed, so that images compare.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        There is no row, or one with another number of figures than there are columns.
    """
    rows = [(name, figures) for block in blocks for name, figures in block.items()]
    if not rows:
        raise InputError("blocks must hold at least one row, got none")
    for name, figures in rows:
        if len(figures) != len(columns):
            raise InputError(
                f"blocks: {name} must have a figure for each of {len(columns)} columns, has {len(figures)}"
            )
    font = ImageFont.load_default(_TEXT)
    left = 2 * _MARGIN + max(int(font.getlength(name)) for name, _ in rows)
    top = 2 * _MARGIN + 2 * _HEIGHT - _TEXT
    right = left + _WIDTH * len(columns)
    bottom = top + _HEIGHT * len(rows) + _BLOCK_GAP * (len(blocks) - 1)
    width = max(right + _MARGIN + _BAR + 60, 2 * _MARGIN + int(font.getlength(title)))

    image = Image.new("RGB", (width, bottom + _MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((_MARGIN, _MARGIN), title, INK, font)
    for number, heading in enumerate(columns):
        pen.text((left + _WIDTH * number + _WIDTH // 2, top - _TEXT), heading, INK, font, anchor="mm")
    y = top
    for block in blocks:
        for name, figures in block.items():
            pen.text((_MARGIN, y + _HEIGHT // 2), name, INK, font, anchor="lm")
            for number, colour in enumerate(heat_map([figures], low=low, high=high)[0]):
                x = left + _WIDTH * number
                pen.rectangle((x, y, x + _WIDTH - 2, y + _HEIGHT - 2), tuple(colour.tolist()))
                middle = x + _WIDTH // 2, y + _HEIGHT // 2
                pen.text(middle, f"{figures[number]:.3f}", _readable(colour), font, anchor="mm")
            y += _HEIGHT
        y += _BLOCK_GAP
    _scale(image, (right + _MARGIN, top, bottom), low, high, font)
    return np.asarray(image)


def _readable(colour: Frame) -> tuple[int, int, int]:
    """Choose light or dark letters for a cell of this colour."""
    bright = float(colour @ np.array([0.299, 0.587, 0.114])) > 110  # Rec. 601's luma
    return PAPER if bright else INK


def _scale(
    image: Image.Image,
    place: tuple[int, int, int],
    low: float,
    high: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Draw the colours with their values, at (x, top, bottom)."""
    x, top, bottom = place
    rising = heat_map(np.linspace(high, low, bottom - top)[:, None], low=low, high=high)
    image.paste(Image.fromarray(rising.repeat(_BAR, axis=1)), (x, top))
    pen = ImageDraw.Draw(image)
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        y = round(bottom - 1 - share * (bottom - 1 - top))
        pen.line((x + _BAR, y, x + _BAR + 4, y), INK)
        pen.text((x + _BAR + 8, y), f"{low + share * (high - low):.2f}", INK, font, anchor="lm")
