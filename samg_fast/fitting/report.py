"""A page that shows what a fitted network finds, beside its teacher; one file, with its images in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from samg_fast.checks import Frame
from samg_fast.files import write_text
from samg_fast.media import drawing

from .evaluate import Held, Measured

__all__ = ["write_report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td { padding: .2rem .8rem; text-align: right } td:first-child { text-align: left }
figure { display: inline-block; margin: .4rem } figcaption { font-size: 12px; text-align: center }
img { image-rendering: pixelated; width: 168px } .row { white-space: nowrap }
"""


def write_report(
    path: Path, title: str, verdict: str, facts: Sequence[tuple[str, str]], held: Held, student: Measured,
    teacher: Measured | None,
) -> None:  # fmt: skip
    """Write the page.

    Parameters
    ----------
    path : path
    title, verdict : str
        What it is of, and whether it was accepted.
    facts : sequence of (str, str)
        Rows of a table: what, and how much.
    held : Held
    student, teacher : Measured
        Of the same frames; no teacher where the labels are the ground truth.
    """
    order = np.argsort(student.ious)
    middle = len(order) // 2
    picks = (("Worst frames", order[:6]), ("Typical frames", order[max(0, middle - 3) : middle + 3]))
    rows = "".join(f"<tr><td>{escape(what)}</td><td>{escape(value)}</td></tr>" for what, value in facts)
    figures = "".join(
        f"<h2>{heading}</h2>" + "".join(_row(int(index), held, student, teacher) for index in which)
        for heading, which in picks
    )
    write_text(
        path,
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(verdict)}</p><table>{rows}</table>{figures}</html>\n",
    )


def _row(index: int, held: Held, student: Measured, teacher: Measured | None) -> str:
    """Draw a frame, its label, and what was found in it."""
    frame = held.frames[index]
    kind = "as it is" if index < held.clean else "on another background"
    cells = [("frame, " + kind, frame), ("label", drawing.overlay(frame, held.masks[index]))]
    for name, found in (("fitted", student), ("teacher", teacher)):
        if found is not None:
            drawn = drawing.overlay(frame, found.masks[index])
            cells.append((f"{name}: IoU {found.ious[index]:.2f}, score {found.scores[index]:.2f}", drawn))
    return f"<div class=row>{''.join(_figure(words, image) for words, image in cells)}</div>"


def _figure(words: str, image: Frame) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    alt = escape(words)
    image_tag = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return f"<figure>{image_tag}<figcaption>{alt}</figcaption></figure>"
