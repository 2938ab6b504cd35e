"""Results in the formats of other tools: one module for each, and one place where they are named."""

from __future__ import annotations

from samg_fast.errors import InputError
from samg_fast.formats.alpha import AlphaWriter
from samg_fast.formats.coco import CocoPolygonsWriter, CocoWriter
from samg_fast.formats.composite import CompositeWriter
from samg_fast.formats.davis import DavisWriter
from samg_fast.formats.npz import NpzWriter
from samg_fast.formats.png import PngWriter
from samg_fast.formats.writer import Job, Result, Writer
from samg_fast.formats.yolo import YoloWriter

__all__ = ["FORMATS", "Job", "PngWriter", "Result", "Writer", "check_formats"]

FORMATS: dict[str, type[Writer]] = {
    "png": PngWriter,
    "davis": DavisWriter,
    "coco": CocoWriter,
    "coco-polygons": CocoPolygonsWriter,
    "npz": NpzWriter,
    "yolo": YoloWriter,
    "alpha": AlphaWriter,
    "composite": CompositeWriter,
}
"""Name → what writes it."""


def check_formats(names: str) -> list[type[Writer]]:
    """Return the formats that a text names, separated by commas, each once.

    Raises
    ------
    InputError
        One is unknown, or none is named.
    """
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown or not chosen:
        wrong = unknown[0] if unknown else names
        raise InputError(f"format must be some of {', '.join(FORMATS)}, separated by commas, not {wrong!r}")
    return [FORMATS[name] for name in chosen]
